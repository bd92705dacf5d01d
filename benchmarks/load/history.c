// Before a replay: an event whose id becomes everybody's cursor, and after it the events that they will come back to.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "storm.h"

static void fail(const char *what, const Answer *answer) {
  fprintf(stderr, "storm: history: %s: %d %.200s\n", what, answer->status, answer->body);
  exit(1);
}

static void publish_now(Storm *storm, int fd, char *room, uint32_t first, long events, Answer *answer) {
  char bytes[16384];
  size_t length = publish_request(storm, room, first, events, now_ns()), sent = 0;
  answer_begin(answer);
  for (ssize_t some; sent < length; sent += (size_t)some)
    if ((some = write(fd, room + sent, length - sent)) <= 0) fail("cannot write", answer);
  while (!answer->done) {
    ssize_t got = read(fd, bytes, sizeof bytes);
    if (got <= 0) fail("no answer", answer);
    answer_feed(answer, bytes, got);
  }
  if (answer->status / 100 != 2) fail("refused", answer);
}

static void keep_cursor(Storm *storm, const Answer *answer) {
  const char *after = storm->options.cursor_after, *at = strstr(answer->body, after);
  if (!at) fail("no id in the answer", answer);
  at += strlen(after);
  size_t length = strcspn(at, "\" \r\n,");
  if (!length || length >= sizeof storm->cursor) fail("no id in the answer", answer);
  memcpy(storm->cursor, at, length);
}

void publish_history(Storm *storm) {
  const Options *o = &storm->options;
  Answer answer;
  struct timeval bound = {.tv_sec = 10};
  char *room = malloc(publish_request_room(storm));
  int fd = open_socket(&storm->publish_to, 0, true, 0);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
  publish_now(storm, fd, room, UINT32_MAX, 1, &answer);
  keep_cursor(storm, &answer);
  for (long first = 0; first < o->replay; first += o->batch) {
    long left = o->replay - first;
    publish_now(storm, fd, room, (uint32_t)first, left < o->batch ? left : o->batch, &answer);
  }
  close(fd);
  free(room);
}
