// The bytes of a publish: one event or many, one a line, in whatever stands around them.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storm.h"

enum { HEAD_ROOM = 8192, EDGE_ROOM = 64 };

size_t body_room(const Options *o) {
  return (size_t)o->batch * (strlen(o->prefix) + strlen(o->suffix) + (size_t)o->bytes + EDGE_ROOM);
}

size_t publish_request_room(const Storm *storm) {
  const Options *o = &storm->options;
  return HEAD_ROOM + strlen(o->publish_header) + strlen(o->publish_path) + strlen(o->publish_subject) + body_room(o);
}

// One event; UINT32_MAX makes one without a mark, which no reader accounts for.
char *write_event(const Options *o, char *out, uint32_t sequence, uint64_t due_ns) {
  expand(out, strlen(o->prefix) + EDGE_ROOM, o->prefix, 0, 0, sequence % o->groups);
  out += strlen(out);
  memset(out, '-', (size_t)o->bytes);
  if (sequence != UINT32_MAX) write_mark(out, due_ns, sequence);
  out += o->bytes;
  return stpcpy(out, o->suffix);
}

static char *write_body(const Options *o, char *out, uint32_t first, long events, uint64_t due_ns) {
  for (long i = 0; i < events; i++) {
    if (i) *out++ = '\n';
    out = write_event(o, out, first == UINT32_MAX ? first : first + (uint32_t)i, due_ns);
  }
  return out;
}

size_t publish_request(const Storm *storm, char *out, uint32_t first, long events, uint64_t due_ns) {
  const Options *o = &storm->options;
  char *body = out + publish_request_room(storm) - body_room(o);
  size_t length = (size_t)(write_body(o, body, first, events, due_ns) - body);
  const char *host = storm->publish_to.at.ss_family == AF_INET ? o->publish_to : "localhost";
  int head = sprintf(out, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\n%sContent-Length: %zu\r\n\r\n",
                     o->publish_path, host, o->publish_type, o->publish_header, length);
  memmove(out + head, body, length);
  return (size_t)head + length;
}
