// The publishers: one thread, several kept-alive connections ("lanes"), each of which publishes its share of the events
// in order and waits for every answer. An event is sent when it is due or, if its lane still waits for an answer, as
// soon as that has come.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "storm.h"

typedef struct {
  int fd;     // -1: connect before the next request
  long next;  // the batch it sends next
  bool busy, retried;
  uint64_t due_ns;
  size_t length, sent;
  char *request;
  Answer answer;
} Lane;

typedef struct {
  Storm *storm;
  Lane *lanes;
  int epoll, timer;
  long batches, answered;
  uint64_t deadline_ns, earliest_ns;
} Desk;

static long events_in(const Options *o, long batch) {
  long left = o->count - batch * o->batch;
  return left < o->batch ? left : o->batch;
}

static uint64_t due_of(const Desk *desk, long batch, uint64_t now) {
  const Options *o = &desk->storm->options;
  const Publishing *publishing = &desk->storm->publishing;
  if (o->one_at_a_time) {
    bool settled = (long)atomic_load(&publishing->everywhere) >= batch * o->batch && desk->answered >= batch;
    return settled ? (desk->earliest_ns > now ? desk->earliest_ns : now) : UINT64_MAX;
  }
  if (o->rate <= 0) return now;
  return publishing->start_ns + (uint64_t)((double)(batch * o->batch) * 1e9 / o->rate);
}

static void hang_up(Lane *lane) {
  if (lane->fd >= 0) close(lane->fd);
  lane->fd = -1;
}

static void account_answer(Desk *desk, Lane *lane, bool accepted) {
  Storm *storm = desk->storm;
  const Options *o = &storm->options;
  long first = lane->next * o->batch, events = events_in(o, lane->next);
  static int complaints;
  if (!accepted && complaints++ < 3)
    fprintf(stderr, "storm: a publish was answered %d: %.200s\n", lane->answer.status, lane->answer.body);
  for (long i = first; accepted && i < first + events; i++)
    atomic_fetch_add(&storm->publishing.accepted_by_group[(i + o->replay) % o->groups], 1);
  atomic_fetch_add(accepted ? &storm->publishing.accepted : &storm->publishing.refused, (unsigned long)events);
  if (accepted) histogram_add(&storm->publishing.answers, now_ns() - lane->due_ns);
  lane->busy = lane->retried = false;
  lane->next += o->publishers;
  desk->answered++;
}

static void transmit(Desk *desk, Lane *lane);

// A kept-alive connection may be closed by the server while it rests; that costs one more try, not the event.
static void lost(Desk *desk, Lane *lane) {
  hang_up(lane);
  if (!lane->busy) return;
  bool again = !lane->retried && !lane->answer.status && !lane->answer.head_length;
  lane->retried = true;
  lane->sent = 0;
  if (again) transmit(desk, lane);
  else account_answer(desk, lane, false);
}

static bool ensure_connected(Desk *desk, Lane *lane) {
  if (lane->fd >= 0) return true;
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = lane};
  lane->fd = open_socket(&desk->storm->publish_to, 0, false, 0);
  return lane->fd >= 0 && !epoll_ctl(desk->epoll, EPOLL_CTL_ADD, lane->fd, &event);
}

static void transmit(Desk *desk, Lane *lane) {
  if (!ensure_connected(desk, lane)) {
    lane->retried = true;
    lost(desk, lane);
    return;
  }
  while (lane->sent < lane->length) {
    ssize_t sent = send(lane->fd, lane->request + lane->sent, lane->length - lane->sent, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN)) return;  // the edge of EPOLLOUT comes back here
    if (sent < 0) {
      lost(desk, lane);
      return;
    }
    lane->sent += (size_t)sent;
  }
}

static void send_batch(Desk *desk, Lane *lane, uint64_t due) {
  const Options *o = &desk->storm->options;
  uint32_t first = (uint32_t)(o->replay + lane->next * o->batch);
  lane->due_ns = due;
  bool nats = *o->publish_subject;
  lane->length = nats ? nats_publish(desk->storm, lane->request, lane->fd < 0, first, due)
                      : publish_request(desk->storm, lane->request, first, events_in(o, lane->next), due);
  lane->sent = 0;
  lane->busy = true;
  lane->retried = nats;  // it closes no connection because it rests, and a second try might be a second event
  answer_begin(&lane->answer);
  transmit(desk, lane);
}

static void finish_answer(Desk *desk, Lane *lane) {
  int status = lane->answer.status;
  if (lane->answer.close) hang_up(lane);
  desk->earliest_ns = now_ns() + (uint64_t)(desk->storm->options.gap_seconds * 1e9);
  account_answer(desk, lane, status >= 200 && status < 300);
}

static void hear(Desk *desk, Lane *lane) {
  char bytes[16384];
  bool nats = *desk->storm->options.publish_subject;
  while (lane->fd >= 0) {
    ssize_t got = read(lane->fd, bytes, sizeof bytes);
    if (got < 0) {
      if (errno != EAGAIN && errno != EINTR) lost(desk, lane);
      return;
    }
    bool ended_by_close = got == 0 && lane->busy && lane->answer.part == BODY && lane->answer.left < 0;
    if (got == 0 && !ended_by_close) lost(desk, lane);
    if (got == 0 && ended_by_close) lane->answer.close = true;
    if (lane->busy && got > 0) (nats ? nats_answer_feed : answer_feed)(&lane->answer, bytes, got);
    if (lane->busy && (lane->answer.done || ended_by_close)) finish_answer(desk, lane);
    if (got == 0) return;
  }
}

// Sends what is due; returns when the next is.
static uint64_t send_due(Desk *desk) {
  const Options *o = &desk->storm->options;
  uint64_t next = UINT64_MAX;
  for (long i = 0; i < o->publishers; i++) {
    Lane *lane = &desk->lanes[i];
    for (int burst = 0; burst < 2 && !lane->busy && lane->next < desk->batches; burst++) {
      uint64_t now = now_ns(), due = due_of(desk, lane->next, now);
      if (due > now) {
        if (due < next) next = due;
        break;
      }
      send_batch(desk, lane, due);
    }
  }
  return next;
}

static void set_timer(const Desk *desk, uint64_t at_ns) {
  if (at_ns > desk->deadline_ns) at_ns = desk->deadline_ns;
  struct itimerspec spec = {
      .it_value = {.tv_sec = (time_t)(at_ns / 1000000000u), .tv_nsec = (long)(at_ns % 1000000000u)}};
  timerfd_settime(desk->timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void wait_for_something(Desk *desk) {
  struct epoll_event events[256];
  uint64_t ignored;
  int ready = epoll_wait(desk->epoll, events, 256, 1000);
  for (int i = 0; i < ready; i++) {
    int *fd = events[i].data.ptr;
    if (fd == &desk->timer || fd == &desk->storm->publishing.wake) (void)!read(*fd, &ignored, sizeof ignored);
    else {
      Lane *lane = events[i].data.ptr;
      if (lane->busy && lane->sent < lane->length) transmit(desk, lane);
      hear(desk, lane);
    }
  }
}

static void watch(Desk *desk, int *fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = fd};
  epoll_ctl(desk->epoll, EPOLL_CTL_ADD, *fd, &event);
}

static void set_up(Desk *desk, Storm *storm) {
  const Options *o = &storm->options;
  double scheduled = o->rate > 0 && !o->one_at_a_time ? (double)o->count / o->rate : 0;
  *desk = (Desk){.storm = storm,
                 .epoll = epoll_create1(EPOLL_CLOEXEC),
                 .timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK),
                 .batches = (o->count + o->batch - 1) / o->batch,
                 .lanes = calloc((size_t)o->publishers, sizeof(Lane))};
  storm->publishing.start_ns = now_ns() + 2000000;
  desk->earliest_ns = storm->publishing.start_ns;
  desk->deadline_ns = now_ns() + (uint64_t)((scheduled + o->publish_seconds) * 1e9);
  for (long i = 0; i < o->publishers; i++)
    desk->lanes[i] = (Lane){.fd = -1, .next = i, .request = malloc(publish_request_room(storm))};
  watch(desk, &desk->timer);
  watch(desk, &storm->publishing.wake);
}

void *publish_live(void *argument) {
  Desk desk;
  Storm *storm = argument;
  set_up(&desk, storm);
  while (desk.answered < desk.batches && now_ns() < desk.deadline_ns && !atomic_load(&storm->publishing.stop)) {
    set_timer(&desk, send_due(&desk));
    wait_for_something(&desk);
  }
  storm->publishing.end_ns = now_ns();
  for (long i = 0; i < storm->options.publishers; i++) hang_up(&desk.lanes[i]);
  atomic_store(&storm->publishing.publishing_over, true);
  return NULL;
}
