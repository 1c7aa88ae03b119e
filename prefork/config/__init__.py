"""The schema (one declarative table), loading with places, units, and the generated reference."""
