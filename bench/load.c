/* A load generator: N connections, on each the next request as soon as the last answer is there.

   load PORT CONNECTIONS SECONDS keep|close  ->  one line of JSON

   "close" asks for a new connection with each request. An answer that is cut short is an error; a connection that
   the server closes after a whole answer is not, and is opened again. Latency runs from the connect or the send to
   the last byte of the answer. */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_US 2000000
#define ROOM 16384

struct connection {
    int fd;
    int waits_for_connect;
    uint64_t started_us;
    size_t have;
    char answer[ROOM + 1];
};

static uint32_t histogram[LONGEST_US + 1];
static uint64_t answers, errors;
static struct sockaddr_in server;
static const char *request;
static int keep, poller;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what) { perror(what); exit(1); }

static void send_request(struct connection *c) {
    size_t length = strlen(request);
    c->have = 0;
    if (keep) c->started_us = now_us();
    if (send(c->fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) errors++;
}

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) != 0) die("epoll_ctl");
}

static void reconnect(struct connection *c) {
    int one = 1;
    if (c->fd >= 0) close(c->fd);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->started_us = now_us();
    c->have = 0;
    c->waits_for_connect = 1;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS) die("connect");
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

/* Return 1 when the answer is complete: its head and Content-Length bytes. */
static int complete(struct connection *c) {
    c->answer[c->have] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) return 0;
    for (char *line = strstr(c->answer, "\r\n"); line && line < end; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, "content-length:", 15) == 0)
            return c->have >= (size_t)(end + 4 - c->answer) + strtoul(line + 17, NULL, 10);
    fprintf(stderr, "an answer without Content-Length:\n%s\n", c->answer);
    exit(1);
}

static void count(struct connection *c) {
    uint64_t took_us = now_us() - c->started_us;
    if (strncmp(c->answer + 8, " 200", 4) != 0) errors++;
    histogram[took_us < LONGEST_US ? took_us : LONGEST_US]++;
    answers++;
}

static void on_event(struct connection *c, uint32_t events) {
    if (c->waits_for_connect) {
        c->waits_for_connect = 0;
        if (events & (EPOLLERR | EPOLLHUP)) { errors++; reconnect(c); return; }
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
        send_request(c);
        return;
    }
    ssize_t n = recv(c->fd, c->answer + c->have, ROOM - c->have, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (c->have || n < 0) errors++;
        reconnect(c);
        return;
    }
    c->have += n;
    if (!complete(c)) return;
    count(c);
    if (keep) send_request(c);
    else reconnect(c);
}

static uint32_t percentile(double share) {
    uint64_t seen = 0;
    for (uint32_t us = 0; us <= LONGEST_US; us++)
        if ((seen += histogram[us]) > 0 && seen >= share * answers) return us;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 5) { fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS keep|close\n"); return 2; }
    int connections = atoi(argv[2]);
    double seconds = atof(argv[3]);
    keep = strcmp(argv[4], "keep") == 0;
    request = keep ? "GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
                   : "GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    poller = epoll_create1(0);
    struct connection *all = calloc(connections, sizeof *all);
    if (!all) die("calloc");
    uint64_t begin_us = now_us(), end_us = begin_us + (uint64_t)(seconds * 1e6);
    for (int i = 0; i < connections; i++) { all[i].fd = -1; reconnect(&all[i]); }
    while (now_us() < end_us) {
        struct epoll_event ready[256];
        int n = epoll_wait(poller, ready, 256, 100);
        for (int i = 0; i < n; i++) on_event(ready[i].data.ptr, ready[i].events);
    }
    double took_s = (now_us() - begin_us) / 1e6;
    printf("{\"answers\": %lu, \"errors\": %lu, \"seconds\": %.3f, \"p50_us\": %u, \"p99_us\": %u}\n",
           (unsigned long)answers, (unsigned long)errors, took_s, percentile(0.5), percentile(0.99));
    return 0;
}
