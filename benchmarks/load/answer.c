// Reads one HTTP answer from a kept-alive connection, framed by length, by chunks or by the connection's end.
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "storm.h"

void answer_begin(Answer *answer) { *answer = (Answer){.part = HEAD}; }

static const char *field(const Answer *answer, const char *name) {
  const char *at = strcasestr(answer->head, name);
  return at ? at + strlen(name) : NULL;
}

static void enter(Answer *answer, int part) {
  answer->part = part;
  answer->head_length = 0;
}

static void end_head(Answer *answer) {
  const char *length = field(answer, "\r\ncontent-length:"), *coding = field(answer, "\r\ntransfer-encoding: chunked");
  answer->status = strlen(answer->head) > 12 ? atoi(answer->head + 9) : 0;
  answer->close = field(answer, "\r\nconnection: close") != NULL;
  answer->left = length ? atol(length) : -1;
  bool empty = answer->status == 204 || answer->status == 304 || (length && !answer->left);
  if (answer->status == 100) answer_begin(answer);
  else if (empty) answer->done = true;
  else enter(answer, coding ? CHUNK_SIZE : BODY);
}

// Collects a head, or a chunk's size line, byte by byte; answers are short.
static void collect(Answer *answer, char byte) {
  if (answer->head_length < (int)sizeof answer->head - 1) answer->head[answer->head_length++] = byte;
  answer->head[answer->head_length] = 0;
}

static bool head_ends(const Answer *answer) {
  return answer->head_length >= 4 && !memcmp(answer->head + answer->head_length - 4, "\r\n\r\n", 4);
}

static void end_chunk_size(Answer *answer) {
  answer->left = strtol(answer->head, NULL, 16);
  enter(answer, answer->left ? CHUNK : TRAILER);
}

static void take_line_byte(Answer *answer, char byte) {
  collect(answer, byte);
  if (answer->part == HEAD) {
    if (head_ends(answer)) end_head(answer);
  } else if (byte == '\n' && answer->part == CHUNK_SIZE) end_chunk_size(answer);
  else if (byte == '\n' && answer->part == CHUNK_END) enter(answer, CHUNK_SIZE);
  else if (byte == '\n' && answer->part == TRAILER) {
    answer->done = answer->head_length <= 2;
    enter(answer, TRAILER);
  }
}

static long take_body(Answer *answer, const char *bytes, long length) {
  if (answer->left >= 0 && length > answer->left) length = answer->left;
  long room = (long)sizeof answer->body - 1 - answer->kept, keep = length < room ? length : room;
  memcpy(answer->body + answer->kept, bytes, (size_t)keep);
  answer->kept += (int)keep;
  if (answer->left < 0) return length;
  answer->left -= length;
  if (!answer->left && answer->part == BODY) answer->done = true;
  if (!answer->left && answer->part == CHUNK) enter(answer, CHUNK_END);
  return length;
}

void answer_feed(Answer *answer, const char *bytes, long length) {
  while (length > 0 && !answer->done) {
    bool body = answer->part == BODY || answer->part == CHUNK;
    long taken = body ? take_body(answer, bytes, length) : 1;
    if (!body) take_line_byte(answer, *bytes);
    bytes += taken;
    length -= taken;
  }
}
