"""Send the same valid, doubtful and malformed requests to several servers, and compare what comes of them."""
