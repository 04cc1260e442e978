/* The load generator: thousands of event-stream or WebSocket clients in one process.
 *
 * It does as little per byte as it can, so that it is never what the benchmark measures:
 * one recv() per readable connection and a search for numbers. A numbered publication
 * carries "@" and eight digits somewhere; "@" occurs nowhere else in what the servers send.
 * For each number it keeps how often it was received and when by the first, by half of the
 * connections and by the last.
 *
 * `load REQUESTS SECONDS PORT` connects to 127.0.0.1:PORT; connection i sends the i-th of the
 * requests. Commands:
 *
 *   open COUNT WINDOW SECONDS            open connections, at most WINDOW of them unanswered
 *   open COUNT WINDOW SECONDS BUFFER     the same, with a receive buffer of BUFFER bytes, and
 *                                        what these receive is not counted
 *   await FIRST LAST COUNT SECONDS       wait until each of these numbers came COUNT times
 *   pause COUNT                          the newest COUNT connections stop reading
 *   state                                connections open and closed, bytes received
 */
#include "clients.h"

enum { CONNECTIONS = 60000, NUMBERS = 1000000, BUFFER = 1 << 18, DIGITS = 8 };

enum phase { CONNECTING, ANSWERING, STREAMING, CLOSED };

static struct connection {
    int fd;
    enum phase phase;
    int uncounted;
    int refused;      /* the answer was neither 200 nor 101 */
    int end_of_head;  /* how much of CR LF CR LF has been seen */
    int head_length;
    char head[80];    /* how the answer begins, for the report of a refusal */
    int digits;       /* of the number being read; -1 outside of one */
    uint32_t number;
    int64_t begun;
} connections[CONNECTIONS];

static struct number {
    uint32_t count;
    int64_t first, half, last;
} *numbers;

static int made, streaming, closed, failed, unanswered, port;
static uint64_t bytes, reads;
static int64_t slowest_answer;
static char first_failure[160];

static void fail(struct connection *c, const char *why)
{
    if (!failed++)
        snprintf(first_failure, sizeof first_failure, "%.100s", why);
    c->phase = CLOSED;
    unanswered--;
    close(c->fd);
}

static void finish(struct connection *c)
{
    if (c->phase == STREAMING) {
        streaming--, closed++;
        c->phase = CLOSED;
        close(c->fd);
    } else {
        fail(c, c->head_length ? c->head : "closed before an answer");
    }
}

/* Note each number in what was received, also one that spans two reads. */
static void count(struct connection *c, const char *from, const char *end, int64_t at)
{
    while (from < end) {
        if (c->digits < 0) {
            from = memchr(from, '@', (size_t)(end - from));
            if (!from)
                return;
            from++, c->digits = 0, c->number = 0;
        } else if (*from < '0' || *from > '9') {
            c->digits = -1;
        } else {
            c->number = c->number * 10 + (uint32_t)(*from++ - '0');
            if (++c->digits == DIGITS) {
                struct number *n = &numbers[c->number % NUMBERS];
                n->first = n->count++ ? n->first : at;
                n->half = n->count == (uint32_t)(streaming + 1) / 2 ? at : n->half;
                n->last = at;
                c->digits = -1;
            }
        }
    }
}

/* Read the head of the answer; return where the stream begins, or NULL. */
static const char *answered(struct connection *c, const char *from, const char *end)
{
    static const char blank[] = "\r\n\r\n";

    while (from < end && c->end_of_head < 4) {
        if (c->head_length < (int)sizeof c->head - 1 && (unsigned char)*from >= ' ')
            c->head[c->head_length++] = *from;
        c->end_of_head = *from == blank[c->end_of_head] ? c->end_of_head + 1 : *from == '\r';
        from++;
    }
    if (c->end_of_head < 4)
        return NULL;
    if (strncmp(c->head, "HTTP/1.1 200", 12) && strncmp(c->head, "HTTP/1.1 101", 12)) {
        fail(c, c->head);
        return NULL;
    }
    int64_t took = now() - c->begun;
    slowest_answer = took > slowest_answer ? took : slowest_answer;
    c->phase = STREAMING;
    unanswered--, streaming++;
    return from;
}

static void receive(struct connection *c)
{
    static char buffer[BUFFER];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        finish(c);
        return;
    }
    bytes += (uint64_t)got, reads++;
    const char *from = buffer, *end = buffer + got;
    if (c->phase == ANSWERING)
        from = answered(c, from, end);
    if (from && !c->uncounted)
        count(c, from, end, now());
}

static void request(struct connection *c)
{
    uint32_t place = (uint32_t)(c - connections);
    const char *text = requests[place % (uint32_t)request_count];
    const char *error = first_ask(c->fd, place, text, strlen(text));

    if (error)
        fail(c, error);
    else
        c->phase = ANSWERING;
}

static void open_one(int receive_buffer)
{
    struct connection *c = &connections[made];

    unanswered++;
    c->digits = -1;
    c->uncounted = receive_buffer > 0;
    c->begun = now();
    const char *error = dial(&c->fd, (uint32_t)made++, port, receive_buffer);
    if (error)
        fail(c, error);
}

static void happen(uint32_t place)
{
    struct connection *c = &connections[place];

    if (c->phase == CONNECTING)
        request(c);
    else if (c->phase != CLOSED)
        receive(c);
}

static void open_many(int count, int window, double seconds, int receive_buffer)
{
    int64_t begun = now(), until = in(seconds);
    int wanted = made + count;

    if (wanted > CONNECTIONS)
        wanted = CONNECTIONS;
    slowest_answer = 0;
    while ((made < wanted || unanswered) && now() < until) {
        while (made < wanted && unanswered < window)
            open_one(receive_buffer);
        turn(10);
    }
    printf("{\"open\":%d,\"failed\":%d,\"unanswered\":%d,\"seconds\":%.6f,"
           "\"slowest\":%.6f,\"failure\":\"",
           streaming, failed, unanswered, (double)(now() - begun) / 1e9,
           (double)slowest_answer / 1e9);
    for (char *s = first_failure; *s; s++)
        putchar(*s == '"' || *s == '\\' ? '\'' : *s);
    printf("\"}\n");
}

static void await(int first, int last, uint32_t count, double seconds)
{
    int64_t until = in(seconds);
    int next = first;

    while (now() < until) {
        while (next <= last && numbers[next].count >= count)
            next++;
        if (next > last)
            break;
        turn(10);
    }
    uint64_t total = 0;
    int64_t begin = INT64_MAX, half = 0, end = 0;
    for (int i = first; i <= last; i++) {
        if (!numbers[i].count)
            continue;
        total += numbers[i].count;
        begin = numbers[i].first < begin ? numbers[i].first : begin;
        half = numbers[i].half > half ? numbers[i].half : half;
        end = numbers[i].last > end ? numbers[i].last : end;
    }
    printf("{\"complete\":%s,\"received\":%llu,\"first\":%lld,\"half\":%lld,"
           "\"last\":%lld}\n",
           next > last ? "true" : "false", (unsigned long long)total,
           (long long)(total ? begin : 0), (long long)half, (long long)end);
}

static void pause_newest(int count)
{
    int paused = 0;

    for (int i = made - 1; i >= 0 && paused < count; i--) {
        if (connections[i].phase != STREAMING)
            continue;
        epoll_ctl(epoll, EPOLL_CTL_DEL, connections[i].fd, NULL);
        paused++;
    }
    printf("{\"paused\":%d}\n", paused);
}

static void obey(char *line)
{
    int a, b, d = 0;
    unsigned count;
    double seconds;

    if (sscanf(line, "open %d %d %lf %d", &a, &b, &seconds, &d) >= 3)
        open_many(a, b, seconds, d);
    else if (sscanf(line, "await %d %d %u %lf", &a, &b, &count, &seconds) == 4 && a >= 0 &&
             b < NUMBERS)
        await(a, b, count, seconds);
    else if (sscanf(line, "pause %d", &a) == 1)
        pause_newest(a);
    else if (!strncmp(line, "state", 5))
        printf("{\"open\":%d,\"closed\":%d,\"bytes\":%llu,\"reads\":%llu}\n", streaming, closed,
               (unsigned long long)bytes, (unsigned long long)reads);
    else
        printf("{\"error\":\"unknown command\"}\n");
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: load REQUESTS SECONDS PORT\n");
        return 2;
    }
    begin(argv, CONNECTIONS);
    port = atoi(argv[3]);
    numbers = calloc(NUMBERS, sizeof *numbers);
    if (!numbers)
        die("memory");
    for (;;)
        if (turn(1000))
            take_command();
}
