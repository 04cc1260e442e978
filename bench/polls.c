/* Clients that poll: each asks, is answered, and asks again at once, on one connection.
 *
 * What they say is given, so that one program speaks to every server. Each client has STEPS
 * requests: the first ones begin its session, the last is asked again and again. The byte 1 in a
 * request stands for what the answers so far had behind the first MARK, up to a quotation mark or
 * the end of the line, and the byte 2 for that of the second: so a cursor, or the id of a session,
 * comes back. "Content-Length:" with five spaces behind it is filled in.
 *
 * A numbered publication carries "@" and eight digits somewhere; "@" occurs nowhere else in what
 * the servers send. To each client the numbers have to count up by one from 1 (0 may come before
 * them): what is left out is lost, what comes again is repeated.
 *
 * `polls REQUESTS SECONDS PORT STEPS MARK...` connects to 127.0.0.1:PORT. Commands:
 *
 *   open COUNT WINDOW SECONDS   connect, at most WINDOW of them without their last request sent
 *   await NUMBER SECONDS        wait until each client has this number and has asked again; then
 *                               when the last one had it, and what happened so far
 */
#include "clients.h"

enum { CLIENTS = 10000, STEPS = 3, ANSWER = 4096, REQUEST = 2048, MARKS = 2, VALUE = 256 };

static struct client {
    int fd;
    int closed;
    int step;     /* requests sent, those asked again counted once */
    int length;   /* of the answer so far */
    int size;     /* of the whole answer, once its head is there; else 0 */
    long number;  /* of the last publication */
    char values[MARKS][VALUE];
    char answer[ANSWER + 1];
} *clients;

static int port, steps, made, polling, failed;
static const char *marks[MARKS];
static long long answers, empty, lost, repeated;
static int64_t last_receipt;
static char first_failure[160];

static void fail(struct client *c, const char *why)
{
    if (!failed++)
        snprintf(first_failure, sizeof first_failure, "%.100s", why);
    for (char *s = first_failure; *s; s++)
        *s = *s == '"' || *s == '\\' || *s < ' ' ? '\'' : *s;
    c->closed = 1;
    close(c->fd);
}

/* Append; `*size` counts on beyond what there is room for. */
static void put(char *text, size_t *size, const char *from, size_t length)
{
    if (*size + length < REQUEST)
        memcpy(text + *size, from, length);
    *size += length;
}

/* Put what was learned into a request; its size, or REQUEST and more if it is too long. */
static size_t fill(char *text, const struct client *c, const char *from)
{
    static const char field[] = "Content-Length:", blank[] = "\r\n\r\n";
    size_t size = 0;
    char number[12];

    for (; *from; from++) {
        if ((unsigned char)*from > MARKS)
            put(text, &size, from, 1);
        else
            put(text, &size, c->values[*from - 1], strlen(c->values[*from - 1]));
    }
    if (size >= REQUEST)
        return size;
    text[size] = 0;
    char *length = strstr(text, field), *head = strstr(text, blank);
    if (length && head) {
        head += sizeof blank - 1;
        snprintf(number, sizeof number, "%5zu", size - (size_t)(head - text));
        memcpy(length + sizeof field - 1, number, 5);
    }
    return size;
}

/* Send the next request, or the last one again. */
static void next(struct client *c)
{
    static char text[REQUEST];
    uint32_t place = (uint32_t)(c - clients);
    int first = !c->step;

    if (c->step < steps && ++c->step == steps)
        polling++;
    size_t size = fill(text, c, requests[(int)place * steps + c->step - 1]);
    const char *error = size >= REQUEST ? "the request is too long"
                        : first         ? first_ask(c->fd, place, text, size)
                                        : ask(c->fd, text, size);
    if (error)
        fail(c, error);
}

static void take(struct client *c, long number)
{
    if (number <= c->number) {
        repeated += number > 0;
        return;
    }
    lost += number - c->number - 1;
    c->number = number;
    last_receipt = now();
}

/* A whole answer is there: note what it says, and ask again. */
static void answered(struct client *c)
{
    int found = 0;

    c->answer[c->size] = 0;
    for (int i = 0; i < MARKS && marks[i]; i++) {
        const char *value = strstr(c->answer, marks[i]);
        if (!value)
            continue;
        value += strlen(marks[i]);
        snprintf(c->values[i], VALUE, "%.*s", (int)strcspn(value, "\"\r"), value);
    }
    for (const char *at = c->answer; (at = strchr(at, '@')); found++)
        take(c, strtol(++at, NULL, 10));
    if (c->step == steps)
        answers++, empty += !found;
    c->length = c->size = 0;
    next(c);
}

/* The head of an answer is there; false if it is none that says how long it is. */
static int measure(struct client *c, const char *end_of_head)
{
    static const char field[] = "\r\nContent-Length:";
    const char *length = strcasestr(c->answer, field);

    if (strncmp(c->answer, "HTTP/1.1 200", 12) || !length || length > end_of_head)
        return 0;
    c->size = (int)(end_of_head - c->answer) + 4 + atoi(length + sizeof field - 1);
    return 1;
}

static void receive(struct client *c)
{
    ssize_t got = recv(c->fd, c->answer + c->length, (size_t)(ANSWER - c->length), MSG_DONTWAIT);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        fail(c, got ? strerror(errno) : "closed, or an answer that is too long");
        return;
    }
    c->length += (int)got;
    c->answer[c->length] = 0;
    const char *end = c->size ? NULL : strstr(c->answer, "\r\n\r\n");
    if (end && !measure(c, end))
        fail(c, c->answer);
    else if (c->size && c->length > c->size)
        fail(c, "more than the answer");
    else if (c->size && c->length == c->size)
        answered(c);
}

static void happen(uint32_t place)
{
    struct client *c = &clients[place];

    if (c->closed)
        return;
    if (!c->step)
        next(c);
    else
        receive(c);
}

static void open_many(int count, int window, double seconds)
{
    int64_t begun = now(), until = in(seconds);

    while (polling < count && !failed && now() < until) {
        while (made < count && made - polling < window) {
            struct client *c = &clients[made];
            const char *error = dial(&c->fd, (uint32_t)made++, port, 0);
            if (error)
                fail(c, error);
        }
        turn(10);
    }
    printf("{\"polling\":%d,\"seconds\":%.6f,\"failure\":\"%s\"}\n", polling,
           (double)(now() - begun) / 1e9, first_failure);
}

static void await(long number, double seconds)
{
    int64_t until = in(seconds);
    int have = 0;

    for (; !failed && now() < until; turn(10)) {
        while (have < made && clients[have].number >= number)
            have++;
        if (have == made)
            break;
    }
    printf("{\"away\":%d,\"last\":%lld,\"answers\":%lld,\"empty\":%lld,\"lost\":%lld,"
           "\"repeated\":%lld,\"failure\":\"%s\"}\n",
           made - have, (long long)last_receipt, answers, empty, lost, repeated, first_failure);
}

static void obey(char *line)
{
    int count, window;
    long number;
    double seconds;

    if (sscanf(line, "open %d %d %lf", &count, &window, &seconds) == 3 &&
        count * steps <= request_count)
        open_many(count, window, seconds);
    else if (sscanf(line, "await %ld %lf", &number, &seconds) == 2)
        await(number, seconds);
    else
        printf("{\"failure\":\"unknown command\"}\n");
}

int main(int argc, char **argv)
{
    if (argc < 6 || argc > 5 + MARKS) {
        fprintf(stderr, "usage: polls REQUESTS SECONDS PORT STEPS MARK...\n");
        return 2;
    }
    begin(argv, CLIENTS * STEPS);
    port = atoi(argv[3]);
    steps = atoi(argv[4]);
    for (int i = 5; i < argc; i++)
        marks[i - 5] = argv[i];
    clients = calloc(CLIENTS, sizeof *clients);
    if (!clients || steps < 1)
        die("start");
    for (;;)
        if (turn(1000))
            take_command();
}
