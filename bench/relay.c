/* The floor of the benchmark: what Linux asks of one process, and nothing of a program.
 *
 * A request that begins with "GET " becomes a subscriber and gets a fixed event-stream
 * head. The body of a request that begins with "POST" is sent to every subscriber as one
 * event, with one send() each, inside one turn of the epoll loop. There are no channels, no
 * tokens, no history, no queues: a subscriber that cannot take an event at once is dropped.
 * No server that makes one system call per delivery can be cheaper than this by much.
 *
 * Rules: one thread, loopback only, ends with its parent. Started by bench/servers.py as
 * `relay PORT`; prints one line when it listens.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESCRIPTORS = 65536, REQUEST = 16384, EVENTS = 512 };

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-store\r\nConnection: close\r\n\r\n";
static const char PUBLISHED[] = "HTTP/1.1 204 No Content\r\n\r\n";

/* What has arrived of a request; NULL once a connection is a subscriber. */
static struct request {
    size_t length;
    char bytes[REQUEST + 1];
} *requests[DESCRIPTORS];

/* Subscribers in a dense array, so that a publication walks memory in a straight line;
 * places[fd] is where a descriptor stands in it, counted from 1. */
static int subscribers[DESCRIPTORS], places[DESCRIPTORS], subscriber_count;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void subscribe(int fd)
{
    subscribers[subscriber_count++] = fd;
    places[fd] = subscriber_count;
}

static void unsubscribe(int fd)
{
    if (!places[fd])
        return;
    int last = subscribers[--subscriber_count];
    subscribers[places[fd] - 1] = last;
    places[last] = places[fd];
    places[fd] = 0;
}

static void drop(int fd)
{
    unsubscribe(fd);
    free(requests[fd]);
    requests[fd] = NULL;
    close(fd);
}

static void publish(const char *body, size_t length)
{
    static char event[REQUEST + 16];
    size_t size = 0;

    memcpy(event, "data: ", 6), size += 6;
    memcpy(event + size, body, length), size += length;
    memcpy(event + size, "\n\n", 2), size += 2;
    /* Backwards, because drop() fills the gap with the last subscriber. */
    for (int i = subscriber_count - 1; i >= 0; i--)
        if (send(subscribers[i], event, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
            drop(subscribers[i]);
}

static void answer(int fd, const char *bytes, size_t length)
{
    if (send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)length)
        drop(fd);
}

/* Serve the complete requests that have arrived; leave the rest for the next read. */
static void serve(int fd)
{
    struct request *request = requests[fd];

    while (request) {
        request->bytes[request->length] = 0;
        char *body = strstr(request->bytes, "\r\n\r\n");
        if (!body) {
            if (request->length == REQUEST)
                drop(fd);
            return;
        }
        body += 4;
        if (!strncmp(request->bytes, "GET ", 4)) {
            free(request);
            requests[fd] = NULL;
            subscribe(fd);
            answer(fd, STREAM_HEAD, sizeof STREAM_HEAD - 1);
            return;
        }
        char *field = strcasestr(request->bytes, "\r\nContent-Length:");
        size_t wanted = field && field < body ? strtoul(field + 17, NULL, 10) : 0;
        size_t head = (size_t)(body - request->bytes);
        if (head + wanted > REQUEST) {
            drop(fd);
            return;
        }
        if (request->length < head + wanted)
            return;
        publish(body, wanted);
        request->length -= head + wanted;
        memmove(request->bytes, body + wanted, request->length);
        answer(fd, PUBLISHED, sizeof PUBLISHED - 1);
        request = requests[fd];
    }
}

static void receive(int fd)
{
    static char ignored[REQUEST];
    struct request *request = requests[fd];
    char *into = request ? request->bytes + request->length : ignored;
    ssize_t got = recv(fd, into, request ? REQUEST - request->length : REQUEST, MSG_DONTWAIT);

    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        drop(fd);
    } else if (got > 0 && request) {
        request->length += (size_t)got;
        serve(fd);
    }
}

static void admit(int epoll, int listener)
{
    int fd, on = 1;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

        if (fd >= DESCRIPTORS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        requests[fd] = calloc(1, sizeof **requests);
        if (!requests[fd] || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
            die("admit");
    }
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096))
        die("listen");
    return fd;
}

int main(int argc, char **argv)
{
    struct rlimit files = {DESCRIPTORS, DESCRIPTORS};

    if (argc != 2) {
        fprintf(stderr, "usage: relay PORT\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Without the right to raise the limit, what is allowed has to do. */
    if (setrlimit(RLIMIT_NOFILE, &files) && !getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
        die("epoll");
    printf("listening\n");
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                admit(epoll, listener);
            else
                receive(events[i].data.fd);
        }
    }
}
