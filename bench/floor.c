/* What no server can go below: an epoll loop that reads a request and sends the same answer whatever was asked.

   floor PORT

   It takes what one recv returns for one whole request without a body, which suits load.c and nobody else. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 14\r\n\r\nHello, world!\n";
static char request[65536];
static int poller;

static void die(const char *what) { perror(what); exit(1); }

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
}

static void answer(int fd) {
    ssize_t n = recv(fd, request, sizeof request - 1, 0);
    if (n <= 0) { close(fd); return; }
    request[n] = 0;
    send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL);
    if (strstr(request, "\r\nConnection: close\r\n")) close(fd);
}

int main(int argc, char **argv) {
    if (argc != 2) { fprintf(stderr, "usage: floor PORT\n"); return 2; }
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
    if (listen(listener, 1024) != 0) die("listen");
    poller = epoll_create1(0);
    watch(listener);
    for (;;) {
        struct epoll_event ready[64];
        int n = epoll_wait(poller, ready, 64, -1);
        for (int i = 0; i < n; i++) {
            if (ready[i].data.fd != listener) { answer(ready[i].data.fd); continue; }
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd >= 0) watch(fd);
        }
    }
}
