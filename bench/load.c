/* A load generator: N connections, on each the next request as soon as the last answer is there.

   load PORT CONNECTIONS SECONDS <request  ->  one line of JSON

   The request is sent as it is read, but with a running number in place of the first "########". When it or an answer says "Connection: close", the next request gets a new
   connection. An answer that is cut short, or is not a 200, is an error. Latency runs from the send, or from the
   connect if there is one, to the last byte of the answer. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LONGEST_US 2000000
#define HEAD 4096
#define LAST_CHUNK "\r\n0\r\n\r\n"
#define TAIL (sizeof LAST_CHUNK - 1)

struct connection {
    int fd, number, connecting, chunked, closes, answered;
    uint64_t started_us;
    size_t sent, received, whole; /* whole: length of the answer, 0 until its head is there */
    char head[HEAD + 1], tail[TAIL];
};

static uint32_t histogram[LONGEST_US + 1];
static uint64_t answers, errors;
static struct sockaddr_in server;
static char request[1 << 20], buffer[1 << 18];
static size_t request_length;
static char *varying;
static int poller, request_closes;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void die(const char *what) { perror(what); exit(1); }

static void watch(struct connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) != 0) die("epoll_ctl");
}

static void send_rest(struct connection *c) {
    int had_to_wait = c->sent > 0 || c->connecting;
    c->connecting = 0;
    if (varying && c->sent == 0) {
        static uint32_t number;
        char digits[9];
        snprintf(digits, sizeof digits, "%08u", number++ % 100000000);
        memcpy(varying, digits, 8);
    }
    ssize_t n = send(c->fd, request + c->sent, request_length - c->sent, MSG_NOSIGNAL);
    if (n > 0) c->sent += n;
    if (c->sent < request_length) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    else if (had_to_wait) watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void begin(struct connection *c) {
    c->sent = c->received = c->whole = c->chunked = c->closes = 0;
    memset(c->tail, 0, TAIL);
    c->started_us = now_us();
}

static void reconnect(struct connection *c) {
    int one = 1;
    if (c->fd >= 0) close(c->fd);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* An address each, so that ports do not run out while those of closed connections wait. */
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + c->number)};
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&own, sizeof own) != 0) die("bind");
    begin(c);
    c->connecting = 1;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS) die("connect");
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void read_head(struct connection *c, size_t n) {
    size_t have = c->received < HEAD ? c->received : HEAD;
    size_t more = n < HEAD - have ? n : HEAD - have;
    memcpy(c->head + have, buffer, more);
    c->head[have + more] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return;
    end[2] = 0;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->chunked = strcasestr(c->head, "\r\ntransfer-encoding: chunked") != NULL;
    c->closes = request_closes || strcasestr(c->head, "\r\nconnection: close") != NULL;
    if (!length && !c->chunked) {
        fprintf(stderr, "neither Content-Length nor chunks");
        exit(1);
    }
    c->whole = end + 4 - c->head + (length ? strtoul(length + 17, NULL, 10) : 0);
}

/* Take n bytes from the buffer; return 1 when the answer is complete. What is served never contains LAST_CHUNK. */
static int take(struct connection *c, size_t n) {
    if (!c->whole) read_head(c, n);
    c->received += n;
    size_t kept = n < TAIL ? TAIL - n : 0;
    memmove(c->tail, c->tail + TAIL - kept, kept);
    memcpy(c->tail + kept, buffer + n - (TAIL - kept), TAIL - kept);
    return c->whole && (c->chunked ? memcmp(c->tail, LAST_CHUNK, TAIL) == 0 : c->received >= c->whole);
}

static void on_event(struct connection *c, uint32_t events) {
    if (c->connecting && events & (EPOLLERR | EPOLLHUP)) { errors++; reconnect(c); return; }
    if (events & EPOLLOUT) send_rest(c);
    if (!(events & ~EPOLLOUT)) return;
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        errors++;
        reconnect(c);
        return;
    }
    if (!take(c, n)) return;
    uint64_t took_us = now_us() - c->started_us;
    if (strncmp(c->head + 8, " 200", 4) != 0) errors++;
    histogram[took_us < LONGEST_US ? took_us : LONGEST_US]++;
    answers++;
    c->answered = 1;
    if (c->closes) reconnect(c);
    else { begin(c); send_rest(c); }
}

static uint32_t percentile(double share) {
    uint64_t seen = 0;
    for (uint32_t us = 0; us <= LONGEST_US; us++)
        if ((seen += histogram[us]) > 0 && seen >= share * answers) return us;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 4) { fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS <request\n"); return 2; }
    int connections = atoi(argv[2]);
    double seconds = atof(argv[3]);
    request_length = fread(request, 1, sizeof request - 1, stdin);
    request_closes = strcasestr(request, "\r\nconnection: close") != NULL;
    varying = strstr(request, "########");
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    poller = epoll_create1(0);
    struct connection *all = calloc(connections, sizeof *all);
    if (!all) die("calloc");
    uint64_t begin_us = now_us(), end_us = begin_us + (uint64_t)(seconds * 1e6);
    for (int i = 0; i < connections; i++) { all[i].fd = -1; all[i].number = i; reconnect(&all[i]); }
    while (now_us() < end_us) {
        struct epoll_event ready[256];
        int n = epoll_wait(poller, ready, 256, 100);
        for (int i = 0; i < n; i++) on_event(ready[i].data.ptr, ready[i].events);
    }
    double took_s = (now_us() - begin_us) / 1e6;
    int starved = connections;
    for (int i = 0; i < connections; i++) starved -= all[i].answered;
    printf("{\"answers\": %lu, \"errors\": %lu, \"starved\": %d, \"seconds\": %.3f, \"p99_us\": %u}\n",
           (unsigned long)answers, (unsigned long)errors, starved, took_s, percentile(0.99));
    return 0;
}
