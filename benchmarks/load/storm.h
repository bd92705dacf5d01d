// Storm: a load generator for event streams. It holds many EventSource connections, publishes on a schedule, and
// accounts for every single delivery. This header is the map of its parts; each .c file says what it owns.
//
// Invariants:
// - Every wait has an end (seconds in Options); a watchdog ends the process if all else fails.
// - Latency counts from the moment an event was due, not from the moment it could be sent.
// - An event that was accepted and not delivered, delivered twice, out of its publisher's order or to a reader whose
//   filter does not match is counted, never averaged away.
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { MARK_BYTES = 27, MOST_PIDS = 64, MOST_SIZES = 16 };

typedef struct {
  char *to, *publish_to;                               // "127.0.0.1:8888" or "unix:/path"
  char *path, *header;                                 // what a reader asks for; {n} reader, {f} filter, {g} group
  char *publish_path, *publish_header, *publish_type;  // how an event goes in
  char *publish_subject;  // "": by HTTP; else publish_to is a NATS server
  char *prefix, *suffix;  // what stands around an event's data in the body; {g} group of the event
  char *cursor_after;     // in a publish answer, the text right before the id
  char *pids;             // processes whose CPU and memory are measured
  long readers, stalled, witnesses, sources, in_flight;
  long filters, groups;  // reader n has filter n % filters, and group filter % groups
  long count, replay, publishers, batch, bytes;
  double rate;                       // events a second; 0: as fast as answers come
  bool one_at_a_time, silent, gate;  // silent: another process publishes; gate: wait for a line on stdin
  double gap_seconds, open_seconds, settle_seconds, hold_seconds, return_seconds, linger_seconds, publish_seconds;
} Options;

typedef struct {
  struct sockaddr_storage at;
  socklen_t length;
} Address;
typedef struct {
  uint64_t count, highest, bins[64 * 64];
} Histogram;

enum ReaderState { WAITING, CONNECTING, ASKED, OPEN, GONE };

typedef struct {
  int fd;
  uint8_t state, carried;
  bool stalled, returning;  // never reads; comes with a cursor after the publishing began
  uint32_t group, history;  // history: replayed events it has so far
  uint64_t unique, asked_ns;
  uint32_t *next;          // by lane: the sequence number that would be in order
  uint64_t *seen;          // one bit an event
  char carry[MARK_BYTES];  // the start of a mark that the last read cut off
} Reader;

// What the publishing thread and the reading thread both look at.
typedef struct {
  atomic_bool publishing_over, stop;
  atomic_ulong accepted, refused;  // events
  atomic_ulong *accepted_by_group;
  atomic_ulong everywhere;  // one_at_a_time: events that every reader has
  int wake;                 // eventfd: `everywhere` moved
  uint64_t start_ns, end_ns;
  Histogram answers;  // due until answered; read after the thread's end
} Publishing;

typedef struct {
  uint64_t expected, unique, repeated, disordered, misrouted, foreign;
  uint64_t bytes, first_ns, last_ns;
  uint64_t *due_ns, *last_by_event;  // by sequence number; due as read from the mark
  Histogram latency;
} Account;

typedef struct {
  double cpu_seconds;
  long memory_kb;
  uint64_t at_ns;
  double own_cpu_seconds;
} Snapshot;

typedef struct {
  Options options;
  Address to, publish_to;
  Reader *readers;
  long total_events, started, unanswered, opened, refused, ended, stalled_ended;
  long *opened_by_group, *alive_by_group;  // readers that read; ever opened, and still there
  long opened_returning, alive_returning;
  uint64_t alive_unique;  // deliveries to readers that are still there
  int epoll;
  char cursor[512];
  uint64_t return_ns, caught_up_ns;
  long caught_up;
  Histogram opening;
  Account account;
  Publishing publishing;
  Snapshot before, after_open, after_settle, after_hold, at_publish, at_end;
  long listen_drops;
} Storm;

// options.c
void read_options(Options *options, int argc, char **argv);
double longest_run_seconds(const Options *options);

// net.c
Address parse_address(const char *text);
int open_socket(const Address *to, long source, bool blocking, int receive_bytes);
void expand(char *out, size_t room, const char *pattern, long n, long f, long g);
long listen_drops(void);

// clock.c
uint64_t now_ns(void);
void sleep_until(uint64_t at_ns);

// histogram.c
void histogram_add(Histogram *histogram, uint64_t value);
uint64_t histogram_at(const Histogram *histogram, double share);

// mark.c
void write_mark(char *out, uint64_t due_ns, uint32_t sequence);
bool read_mark(const char *mark, uint32_t *sequence);
uint64_t mark_due_ns(const char *mark);

// process.c
Snapshot take_snapshot(const char *pids);

// request.c
char *write_event(const Options *o, char *out, uint32_t sequence, uint64_t due_ns);
size_t publish_request(const Storm *storm, char *out, uint32_t first, long events, uint64_t due_ns);
size_t publish_request_room(const Storm *storm);
size_t body_room(const Options *o);

// answer.c: one HTTP answer on a kept-alive connection, however it is framed
typedef struct {
  int status, kept;
  bool done, close;
  long left;  // bytes of the body or chunk to come; -1: until close
  enum { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER } part;
  int head_length;
  char head[4096], body[512];  // the body's beginning, for the id and for messages
} Answer;
void answer_begin(Answer *answer);
void answer_feed(Answer *answer, const char *bytes, long length);

// nats.c
size_t nats_publish(const Storm *storm, char *out, bool begins, uint32_t sequence, uint64_t due_ns);
void nats_answer_feed(Answer *answer, const char *bytes, long length);

// account.c
void account_begin(Storm *storm);
void account_bytes(Storm *storm, Reader *reader, char *bytes, long length);
uint64_t expected_in_all(const Storm *storm);
bool all_delivered(const Storm *storm);
void note_everywhere(Storm *storm);

// readers.c
void readers_begin(Storm *storm);
void open_more(Storm *storm, long upto);
void poll_readers(Storm *storm, int wait_ms);

// publish.c
void publish_history(Storm *storm);
void *publish_live(void *storm);

// report.c
void print_report(Storm *storm);
