/* Clients that come back: thousands of event streams that keep their cursors.
 *
 * Each does what the JavaScript client does when its stream ends: it waits a random time below
 * a ceiling that doubles from half a second to 30 seconds (no less than Retry-After says), and
 * comes back with the cursor of the last event it has read to its end. Offsets of the channel
 * bench:all have to count up by one from 1, through all connections of a client: what is left
 * out is lost, what comes again is a duplicate, and a `reset` is counted.
 *
 * `returning REQUESTS SECONDS PORT...` connects client i to the i-th port in turn, at 127.0.0.1,
 * with the i-th of the requests. Commands:
 *
 *   open COUNT WINDOW SECONDS   connect, at most WINDOW of them unanswered
 *   return PORT...              from now on clients come back to one of these, at random
 *   await OFFSET SECONDS        wait until every client has this offset; then what happened so
 *                               far, and when each client that was cut had its first publication
 *                               again
 */
#include "clients.h"

enum { CLIENTS = 20000, BUFFER = 1 << 16, LINE = 1024, CURSOR = 200, PORTS = 8 };

#define NEVER INT64_MAX

/* As in push_server/browser: wire.js and connection.js. */
#define BACKOFF_BASE 0.5
#define BACKOFF_CAP 30.0
#define HELLO_TIMEOUT (5 * SECOND)
#define STEADY (5 * SECOND)

enum phase { WAITING, CONNECTING, ANSWERING, STREAMING };

static struct client {
    int fd;
    enum phase phase;
    int attempt;
    int status;
    double retry_after;
    int64_t begun;
    int64_t offset;
    int64_t back;   /* when it had a publication again; -1 while it is cut, 0 if it never was */
    int length;     /* of the line being read; what exceeds LINE is not looked at */
    int control;    /* the event being read */
    int64_t event_offset;
    char event_cursor[CURSOR];
    char cursor[CURSOR];
    char line[LINE];
} *clients;

/* When a client has to act: to try again, or to give up trying. Apart, to be searched fast. */
static int64_t due[CLIENTS];

static int made, greeted;
static int ports[PORTS], port_count;
static long long lost, duplicates, resets, cuts, refusals, timeouts;

/* Wait and come again, as long as the JavaScript client would. */
static void again(struct client *c)
{
    double ceiling = BACKOFF_BASE * (1 << (c->attempt < 16 ? c->attempt : 16));
    double delay = drand48() * (ceiling < BACKOFF_CAP ? ceiling : BACKOFF_CAP);
    double ordered = c->retry_after * (1 + drand48() / 5);

    if (c->phase != WAITING)
        close(c->fd);
    c->phase = WAITING;
    c->attempt++;
    due[c - clients] = now() + (int64_t)((delay > ordered ? delay : ordered) * 1e9);
}

static void cut(struct client *c)
{
    if (c->phase == STREAMING) {
        cuts++;
        c->back = -1;
        if (now() - c->begun > STEADY)
            c->attempt = 0;
    } else {
        refusals++;
    }
    again(c);
}

static void publication(struct client *c)
{
    if (c->event_offset <= c->offset) {
        duplicates++;
        return;
    }
    lost += c->event_offset - c->offset - 1;
    c->offset = c->event_offset;
    if (c->back < 0)
        c->back = now();
}

/* The blank line: only a whole event counts, and moves the cursor. */
static void event(struct client *c)
{
    if (due[c - clients] != NEVER) {
        due[c - clients] = NEVER;
        greeted++;
    }
    if (c->event_offset)
        publication(c);
    if (*c->event_cursor)
        strcpy(c->cursor, c->event_cursor);
    c->control = 0, c->event_offset = 0, *c->event_cursor = 0;
}

static void line_of_event(struct client *c)
{
    static const char message[] = "data: {\"channel\":\"bench:all\",\"offset\":";
    static const char reset[] = "data: {\"type\":\"reset\"";

    if (!*c->line) {
        if (c->control || c->event_offset || *c->event_cursor)
            event(c);
    } else if (!strcmp(c->line, "event: control")) {
        c->control = 1;
    } else if (!strncmp(c->line, "id: ", 4)) {
        snprintf(c->event_cursor, CURSOR, "%.*s", CURSOR - 1, c->line + 4);
    } else if (!c->control && !strncmp(c->line, message, sizeof message - 1)) {
        c->event_offset = atoll(c->line + sizeof message - 1);
    } else if (c->control && !strncmp(c->line, reset, sizeof reset - 1)) {
        resets++;
    }
}

/* A line of the answer's head; false if the answer is not a stream. */
static int line_of_head(struct client *c)
{
    if (!c->status)
        c->status = strncmp(c->line, "HTTP/1.1 ", 9) ? -1 : atoi(c->line + 9);
    else if (!strncasecmp(c->line, "Retry-After: ", 13))
        c->retry_after = atof(c->line + 13);
    else if (!*c->line && c->status == 200)
        c->phase = STREAMING;
    return *c->line || c->status == 200;
}

static void receive(struct client *c)
{
    static char buffer[BUFFER];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, MSG_DONTWAIT);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        cut(c);
        return;
    }
    for (const char *from = buffer, *end = buffer + got; from < end;) {
        const char *stop = memchr(from, '\n', (size_t)(end - from));
        int size = (int)((stop ? stop : end) - from), room = LINE - 1 - c->length;

        memcpy(c->line + c->length, from, (size_t)(size < room ? size : room));
        c->length += size < room ? size : room;
        if (!stop)
            return;
        from = stop + 1;
        if (c->length && c->line[c->length - 1] == '\r')
            c->length--;
        c->line[c->length] = 0;
        c->length = 0;
        if (c->phase == STREAMING) {
            line_of_event(c);
        } else if (!line_of_head(c)) {
            cut(c);
            return;
        }
    }
}

static void request(struct client *c)
{
    static char text[8192];
    uint32_t place = (uint32_t)(c - clients);
    const char *head = requests[place % (uint32_t)request_count];

    /* All but the blank line at the end, then the cursor if there is one. */
    int size = snprintf(text, sizeof text, "%.*s%s%s%s\r\n", (int)strlen(head) - 2, head,
                        *c->cursor ? "Last-Event-ID: " : "", c->cursor,
                        *c->cursor ? "\r\n" : "");
    if (first_ask(c->fd, place, text, (size_t)size))
        cut(c);
    else
        c->phase = ANSWERING;
}

static void try(struct client *c, int port)
{
    c->begun = now();
    c->length = c->control = c->status = 0;
    c->event_offset = 0, *c->event_cursor = 0, c->retry_after = 0;
    c->phase = CONNECTING;
    due[c - clients] = c->begun + HELLO_TIMEOUT;
    if (dial(&c->fd, (uint32_t)(c - clients), port, 0))
        cut(c);
}

static void act_if_due(void)
{
    int64_t at = now();

    for (int i = 0; i < made; i++) {
        if (due[i] > at)
            continue;
        if (clients[i].phase == WAITING) {
            try(&clients[i], ports[(int)(drand48() * port_count)]);
        } else {
            timeouts++;
            again(&clients[i]);
        }
    }
}

static void happen(uint32_t place)
{
    struct client *c = &clients[place];

    if (c->phase == CONNECTING)
        request(c);
    else if (c->phase != WAITING)
        receive(c);
}

static int turn_and_act(int milliseconds)
{
    int command = turn(milliseconds);

    act_if_due();
    return command;
}

static void open_all(int count, int window, double seconds)
{
    int64_t until = in(seconds);

    while (greeted < count && now() < until) {
        while (made < count && made - greeted < window) {
            made++;
            try(&clients[made - 1], ports[(made - 1) % port_count]);
        }
        turn_and_act(5);
    }
    printf("{\"open\":%d,\"refusals\":%lld}\n", greeted, refusals + timeouts);
}

static void set_ports(char *line)
{
    port_count = 0;
    for (char *word = strtok(line, " \n"); word && port_count < PORTS; word = strtok(NULL, " \n"))
        ports[port_count++] = atoi(word);
}

static void await(int64_t offset, double seconds)
{
    int64_t until = in(seconds);
    int next = 0, away = 0;
    const char *comma = "";

    for (; now() < until; turn_and_act(5)) {
        while (next < made && clients[next].offset >= offset && clients[next].back >= 0)
            next++;
        if (next == made)
            break;
    }
    for (int i = 0; i < made; i++)
        away += clients[i].offset < offset || clients[i].back < 0;
    printf("{\"away\":%d,\"lost\":%lld,\"duplicates\":%lld,\"resets\":%lld,\"cuts\":%lld,"
           "\"refusals\":%lld,\"timeouts\":%lld,\"back\":[",
           away, lost, duplicates, resets, cuts, refusals, timeouts);
    for (int i = 0; i < made; i++)
        if (clients[i].back > 0)
            printf("%s%lld", comma, (long long)clients[i].back), comma = ",";
    printf("]}\n");
}

static void obey(char *line)
{
    int count, window;
    long long offset;
    double seconds;

    if (sscanf(line, "open %d %d %lf", &count, &window, &seconds) == 3 && count <= CLIENTS)
        open_all(count, window, seconds);
    else if (sscanf(line, "await %lld %lf", &offset, &seconds) == 2)
        await(offset, seconds);
    else if (!strncmp(line, "return ", 7))
        set_ports(line + 7), printf("{\"ports\":%d}\n", port_count);
    else
        printf("{\"error\":\"unknown command\"}\n");
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc > 3 + PORTS) {
        fprintf(stderr, "usage: returning REQUESTS SECONDS PORT...\n");
        return 2;
    }
    begin(argv, CLIENTS);
    for (int i = 3; i < argc; i++)
        ports[port_count++] = atoi(argv[i]);
    clients = calloc(CLIENTS, sizeof *clients);
    if (!clients)
        die("memory");
    for (;;)
        if (turn_and_act(5))
            take_command();
}
