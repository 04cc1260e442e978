/* What the load generators share: how they begin, connect, wait and take commands.
 *
 * Each is `PROGRAM REQUESTS SECONDS …`: the file REQUESTS holds NUL-ended requests, and the
 * process ends itself after SECONDS. Commands come as lines on stdin; each is answered by one
 * line of JSON on stdout, whose only reader is bench/load.py. One thread, loopback only.
 *
 * To be included first, by a program that has `happen` and `obey`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 512 };

#define SECOND INT64_C(1000000000)

static int epoll;
static char **requests;
static int request_count;

/* Client number `client` can read, or write for the first time. */
static void happen(uint32_t client);

/* Perform a command and print its answer. */
static void obey(char *line);

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Nanoseconds of CLOCK_MONOTONIC, which is also Python's time.monotonic_ns(). */
static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static int64_t in(double seconds)
{
    return now() + (int64_t)(seconds * 1e9);
}

/* Begin to connect to a port; NULL, or why not. With a `receive_buffer` the socket's is so small. */
static const char *dial(int *fd, uint32_t client, int port, int receive_buffer)
{
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = client};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    /* A reset instead of a farewell, so that the next round finds free ports. */
    struct linger reset = {1, 0};

    *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        die("socket");
    setsockopt(*fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (receive_buffer)
        setsockopt(*fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, *fd, &event))
        die("epoll");
    if (connect(*fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        return strerror(errno);
    return NULL;
}

/* Send a request whole; NULL, or why not. */
static const char *ask(int fd, const char *text, size_t size)
{
    ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);

    if (sent < 0)
        return strerror(errno);
    return (size_t)sent == size ? NULL : "the request was not taken";
}

/* Send the first request on a connection that stands now, or does not; NULL, or why not. */
static const char *first_ask(int fd, uint32_t client, const char *text, size_t size)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = client};
    int error = 0;
    socklen_t length = sizeof error;

    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
    return error ? strerror(error) : ask(fd, text, size);
}

/* One turn of the loop; true if a command waits on stdin. */
static int turn(int milliseconds)
{
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, milliseconds), command = 0;

    for (int i = 0; i < ready; i++) {
        if (events[i].data.u32 == UINT32_MAX)
            command = 1;
        else
            happen(events[i].data.u32);
    }
    return command;
}

/* Perform the command that waits; the process ends with whoever gives them. */
static void take_command(void)
{
    static char line[256];

    if (!fgets(line, sizeof line, stdin))
        exit(0);
    obey(line);
    fflush(stdout);
}

static void read_requests(const char *path, int most)
{
    FILE *file = fopen(path, "rb");
    size_t room = 0;

    requests = calloc((size_t)most, sizeof *requests);
    if (!file || !requests)
        die(path);
    while (request_count < most && getdelim(&requests[request_count], &room, 0, file) > 0)
        request_count++, room = 0;
    fclose(file);
    if (!request_count)
        die("no requests");
}

/* Read the arguments that all programs have; `most` clients with at most as many requests. */
static void begin(char **argv, int most)
{
    struct rlimit files = {(rlim_t)most + 100, (rlim_t)most + 100};
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm((unsigned)atoi(argv[2]));
    /* Without the right to raise the limit, what is allowed has to do. */
    if (setrlimit(RLIMIT_NOFILE, &files) && !getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    read_requests(argv[1], most);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event))
        die("start");
    setvbuf(stdin, NULL, _IONBF, 0);
}
