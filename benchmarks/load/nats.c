// A NATS server as the place where events go: the bytes of a publish, and its answer.
//
// Core NATS acknowledges no publish. A PING behind it is answered with a PONG once the server has taken what came
// before it on the same connection, so each publish has an answer as it has over HTTP. The server's own PINGs stay
// unanswered: it looks after two minutes and hangs up after three of them, so a longer run would show refused events.
#include <stdio.h>
#include <string.h>

#include "storm.h"

// A connection begins with CONNECT, which the server may read before the client has read its INFO.
size_t nats_publish(const Storm *storm, char *out, bool begins, uint32_t sequence, uint64_t due_ns) {
  const Options *o = &storm->options;
  char *body = out + publish_request_room(storm) - body_room(o);
  size_t length = (size_t)(write_event(o, body, sequence, due_ns) - body);
  int head = sprintf(out, "%sPUB %s %zu\r\n", begins ? "CONNECT {\"verbose\":false,\"name\":\"storm\"}\r\n" : "",
                     o->publish_subject, length);
  memmove(out + head, body, length);
  return (size_t)(stpcpy(out + head + length, "\r\nPING\r\n") - out);
}

static void end_line(Answer *answer) {
  bool taken = !strncmp(answer->head, "PONG", 4), wrong = !strncmp(answer->head, "-ERR", 4);
  if (wrong) memcpy(answer->body, answer->head, sizeof answer->body - 1);
  answer->status = taken ? 200 : wrong ? 400 : 0;
  answer->done = taken || wrong;
  answer->close = wrong;  // most errors are the server's last word
  answer->head_length = 0;
}

// What is neither PONG nor an error (INFO, PING) is not about the publish.
void nats_answer_feed(Answer *answer, const char *bytes, long length) {
  for (long i = 0; i < length && !answer->done; i++) {
    if (answer->head_length < (int)sizeof answer->head - 1) answer->head[answer->head_length++] = bytes[i];
    answer->head[answer->head_length] = 0;
    if (bytes[i] == '\n') end_line(answer);
  }
}
