// The connections: opening them at a pace that loses no SYN, reading them, noticing their end.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "storm.h"

enum { READ_BYTES = 256 * 1024, EVENTS = 1024, HEAD_ROOM = 16384, STALLED_RECEIVE_BYTES = 2048 };

void readers_begin(Storm *storm) {
  storm->readers = calloc((size_t)storm->options.readers + 1, sizeof(Reader));
  storm->epoll = epoll_create1(EPOLL_CLOEXEC);
}

// Stalled readers are spread evenly over the others, as they would be in a crowd.
static bool is_stalled(const Options *o, long n) {
  return o->stalled && n * o->stalled / o->readers != (n + 1) * o->stalled / o->readers;
}

static void watch(Storm *storm, long n, uint32_t events, int operation) {
  struct epoll_event event = {.events = events, .data.u32 = (uint32_t)n};
  epoll_ctl(storm->epoll, operation, storm->readers[n].fd, &event);
}

static void complain(const char *what, const char *detail) {
  static int complaints;
  if (complaints++ < 3) fprintf(stderr, "storm: %s: %.200s\n", what, detail);
}

// False when the listener's queue is full just now (Unix sockets say so at once): try again later.
static bool start_reader(Storm *storm, long n) {
  const Options *o = &storm->options;
  Reader *reader = &storm->readers[n];
  bool stalled = is_stalled(o, n);
  int fd = open_socket(&storm->to, n % o->sources, false, stalled ? STALLED_RECEIVE_BYTES : 0);
  if (fd < 0 && errno == EAGAIN) return false;
  *reader = (Reader){.fd = fd,
                     .state = CONNECTING,
                     .stalled = stalled,
                     .returning = n >= o->witnesses,
                     .asked_ns = now_ns(),
                     .group = (uint32_t)(n % o->filters % o->groups)};
  reader->next = calloc((size_t)o->publishers, sizeof(uint32_t));
  reader->seen = calloc((size_t)storm->total_events / 64 + 1, sizeof(uint64_t));
  if (fd >= 0) {
    storm->unanswered++;
    watch(storm, n, EPOLLOUT, EPOLL_CTL_ADD);
  } else {
    complain("cannot connect", strerror(errno));
    reader->state = GONE;
    storm->refused++;
  }
  return true;
}

void open_more(Storm *storm, long upto) {
  while (storm->started < upto && storm->unanswered < storm->options.in_flight && start_reader(storm, storm->started))
    storm->started++;
}

static void lose(Storm *storm, Reader *reader) {
  if (reader->state != OPEN) {
    storm->unanswered--;
    storm->refused++;
  } else if (reader->stalled) storm->stalled_ended++;
  else {
    storm->ended++;
    storm->alive_by_group[reader->group]--;
    storm->alive_returning -= reader->returning;
    storm->alive_unique -= reader->unique;
  }
  reader->state = GONE;
  close(reader->fd);
}

static void ask(Storm *storm, long n) {
  const Options *o = &storm->options;
  Reader *reader = &storm->readers[n];
  char path[4096], request[HEAD_ROOM], cursor[600] = "";
  const char *host = storm->to.at.ss_family == AF_INET ? o->to : "localhost";
  expand(path, sizeof path, o->path, n, n % o->filters, reader->group);
  if (reader->returning) snprintf(cursor, sizeof cursor, "Last-Event-ID: %s\r\n", storm->cursor);
  int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n%s%s\r\n",
                        path, host, o->header, cursor);
  if (write(reader->fd, request, (size_t)length) != length) {
    complain("cannot ask", strerror(errno));
    lose(storm, reader);
    return;
  }
  reader->state = ASKED;
  watch(storm, n, EPOLLIN, EPOLL_CTL_MOD);
}

static void admit(Storm *storm, long n, const char *head, long length) {
  Reader *reader = &storm->readers[n];
  if (length < 12 || memcmp(head, "HTTP/1.", 7) || memcmp(head + 9, "200", 3)) {
    complain("a reader was answered", head);
    lose(storm, reader);
    return;
  }
  reader->state = OPEN;
  storm->unanswered--;
  storm->opened++;
  histogram_add(&storm->opening, now_ns() - reader->asked_ns);
  if (reader->stalled) {
    watch(storm, n, 0, EPOLL_CTL_MOD);  // no interest left but hang-ups, which epoll always reports
    return;
  }
  storm->opened_by_group[reader->group]++;
  storm->alive_by_group[reader->group]++;
  storm->opened_returning += reader->returning;
  storm->alive_returning += reader->returning;
}

static void read_reader(Storm *storm, long n) {
  static char room[MARK_BYTES + READ_BYTES + 1];
  Reader *reader = &storm->readers[n];
  char *bytes = room + MARK_BYTES - reader->carried;
  ssize_t got = read(reader->fd, room + MARK_BYTES, READ_BYTES);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    if (reader->state == ASKED) complain("a reader's connection ended", "without an answer");
    lose(storm, reader);
    return;
  }
  room[MARK_BYTES + got] = 0;
  storm->account.bytes += (uint64_t)got;
  if (reader->state == ASKED) admit(storm, n, room + MARK_BYTES, got);
  if (reader->state != OPEN || reader->stalled) return;
  memcpy(bytes, reader->carry, reader->carried);
  account_bytes(storm, reader, bytes, got + reader->carried);
}

static void handle(Storm *storm, const struct epoll_event *event) {
  long n = event->data.u32;
  Reader *reader = &storm->readers[n];
  if (reader->state == GONE) return;
  if (reader->state == OPEN && reader->stalled) lose(storm, reader);
  else if (reader->state != CONNECTING) read_reader(storm, n);
  else if (event->events & (EPOLLERR | EPOLLHUP)) {
    complain("cannot connect", "refused or reset");
    lose(storm, reader);
  } else ask(storm, n);
}

void poll_readers(Storm *storm, int wait_ms) {
  struct epoll_event events[EVENTS];
  int ready = epoll_wait(storm->epoll, events, EVENTS, wait_ms);
  for (int i = 0; i < ready; i++) handle(storm, &events[i]);
  if (ready > 0) note_everywhere(storm);
}
