// The command line. Every option is a row of one table; `storm --help` prints it.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storm.h"

typedef enum { TEXT, LINES, WHOLE, REAL, FLAG } Kind;

static const struct {
  const char *name;
  Kind kind;
  size_t at;
  const char *meaning;
} table[] = {
#define ROW(name, kind, field, meaning) {name, kind, offsetof(Options, field), meaning}
    ROW("to", TEXT, to, "where readers connect: HOST:PORT or unix:PATH"),
    ROW("path", TEXT, path, "what readers ask for; {n}: reader, {f}: filter, {g}: group"),
    ROW("header", LINES, header, "a header line of a reader's request; may repeat"),
    ROW("publish-to", TEXT, publish_to, "where events go; the same as --to unless given"),
    ROW("publish-path", TEXT, publish_path, "path of a publish"),
    ROW("publish-header", LINES, publish_header, "a header line of a publish; may repeat"),
    ROW("publish-subject", TEXT, publish_subject, "publish to the NATS server at --publish-to, with this subject"),
    ROW("publish-type", TEXT, publish_type, "its Content-Type"),
    ROW("prefix", TEXT, prefix, "what precedes the data of an event in a body; {g}: the event's group"),
    ROW("suffix", TEXT, suffix, "what follows it"),
    ROW("cursor-after", TEXT, cursor_after, "the id in a publish answer follows this text (empty: the body is the id)"),
    ROW("pids", TEXT, pids, "processes to measure, with commas"),
    ROW("readers", WHOLE, readers, "connections"),
    ROW("stalled", WHOLE, stalled, "of these, how many never read after the answer's head"),
    ROW("filters", WHOLE, filters, "distinct filters: reader n has filter n % filters (0: one a reader)"),
    ROW("groups", WHOLE, groups, "event s goes to group s % groups; a reader's group is its filter % groups"),
    ROW("sources", WHOLE, sources, "client addresses 127.0.0.1 … to spread connections over"),
    ROW("in-flight", WHOLE, in_flight, "most connections that wait for an answer while opening"),
    ROW("count", WHOLE, count, "events to publish"),
    ROW("rate", REAL, rate, "events a second (0: as fast as they are answered)"),
    ROW("publishers", WHOLE, publishers, "kept-alive publishing connections; each publishes in order"),
    ROW("batch", WHOLE, batch, "events in a request, one a line"),
    ROW("bytes", WHOLE, bytes, "length of an event's data"),
    ROW("one-at-a-time", FLAG, one_at_a_time, "publish the next event when everybody has the last"),
    ROW("gap-seconds", REAL, gap_seconds, "pause between two such events"),
    ROW("silent", FLAG, silent, "publish nothing: another process does; --count and --publishers are its own"),
    ROW("replay", WHOLE, replay, "events published before; readers beyond --witnesses come back to them by cursor"),
    ROW("witnesses", WHOLE, witnesses, "with --replay: readers that are there from the beginning"),
    ROW("return-seconds", REAL, return_seconds, "with --replay: when the others come, after publishing began"),
    ROW("gate", FLAG, gate, "print 'open' when all are connected and wait for a line on standard input"),
    ROW("open-seconds", REAL, open_seconds, "bound for opening"),
    ROW("settle-seconds", REAL, settle_seconds, "pause after opening"),
    ROW("hold-seconds", REAL, hold_seconds, "idle time to measure after that"),
    ROW("publish-seconds", REAL, publish_seconds, "bound for publishing beyond its schedule"),
    ROW("linger-seconds", REAL, linger_seconds, "bound for the last deliveries after publishing"),
};
enum { ROWS = sizeof table / sizeof *table };

static void print_usage(FILE *to) {
  fprintf(to, "usage: storm --to ADDRESS --path PATH [options]\n");
  for (int i = 0; i < ROWS; i++) fprintf(to, "  --%-16s %s\n", table[i].name, table[i].meaning);
}

static void add_line(char **lines, const char *line) {
  char *joined = malloc(strlen(*lines) + strlen(line) + 3);
  sprintf(joined, "%s%s\r\n", *lines, line);
  *lines = joined;
}

static void set(Options *options, int row, char *value) {
  void *field = (char *)options + table[row].at;
  switch (table[row].kind) {
    case TEXT: *(char **)field = value; break;
    case LINES: add_line(field, value); break;
    case WHOLE: *(long *)field = atol(value); break;
    case REAL: *(double *)field = atof(value); break;
    case FLAG: *(bool *)field = true; break;
  }
}

static void check(Options *o) {
  if (!o->publish_to) o->publish_to = o->to;
  if (!o->filters || o->filters > o->readers) o->filters = o->readers ? o->readers : 1;
  if (!o->replay) o->witnesses = o->readers;
  bool sound = o->to && o->groups >= 1 && o->publishers >= 1 && o->batch >= 1 && o->in_flight >= 1 && o->sources >= 1 &&
               o->sources <= 250 && o->stalled <= o->readers && o->witnesses <= o->readers && o->bytes >= MARK_BYTES &&
               o->count >= 0 && o->count + o->replay < 1 << 28 && !((o->one_at_a_time || o->replay) && o->groups > 1) &&
               !(*o->publish_subject && (o->replay || o->batch > 1));
  if (sound) return;
  print_usage(stderr);
  exit(2);
}

void read_options(Options *options, int argc, char **argv) {
  *options = (Options){.path = "/",
                       .header = "",
                       .publish_path = "/",
                       .publish_header = "",
                       .publish_type = "text/plain",
                       .publish_subject = "",
                       .prefix = "",
                       .suffix = "",
                       .cursor_after = "",
                       .pids = "",
                       .readers = 0,
                       .sources = 1,
                       .in_flight = 100,
                       .groups = 1,
                       .publishers = 1,
                       .batch = 1,
                       .bytes = 128,
                       .rate = 10,
                       .gap_seconds = 0.02,
                       .open_seconds = 60,
                       .settle_seconds = 0.5,
                       .return_seconds = 1,
                       .linger_seconds = 10,
                       .publish_seconds = 30};
  struct option known[ROWS + 2] = {{"help", no_argument, NULL, 'h'}};
  for (int i = 0; i < ROWS; i++)
    known[i + 1] = (struct option){table[i].name, table[i].kind == FLAG ? no_argument : required_argument, NULL, 0};
  for (int got, row; (got = getopt_long(argc, argv, "", known, &row)) != -1;) {
    if (got == 0) set(options, row - 1, optarg);
    else {
      print_usage(got == 'h' ? stdout : stderr);
      exit(got == 'h' ? 0 : 2);
    }
  }
  check(options);
}

// No run takes longer than this, whatever the server does.
double longest_run_seconds(const Options *o) {
  double scheduled = o->rate > 0 && !o->one_at_a_time ? (double)o->count / o->rate : 0;
  double gate = o->gate ? 120 : 0, history = o->replay ? 60 : 0;
  return 10 + o->open_seconds * (o->replay ? 2 : 1) + o->settle_seconds + o->hold_seconds + scheduled +
         o->publish_seconds + o->return_seconds + o->linger_seconds + gate + history;
}
