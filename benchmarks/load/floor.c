// The floor under every fan-out server: accept, one send() for each connection and event, and nothing else. It parses
// no HTTP; one port takes readers, the other takes publishes, whose bodies go out as they are. What it costs is what
// the kernel costs.
//
// usage: floor READER_PORT PUBLISH_PORT [HEARTBEAT_SECONDS]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { FILES = 65536, TICKS_PER_SECOND = 10 };
enum Role { NONE, READER_DOOR, PUBLISH_DOOR, TIMER, ARRIVED, READER, PUBLISHER };

static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
static const char accepted[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
static enum Role roles[FILES];
static int readers[FILES], place[FILES], reader_count, next_heartbeat, heartbeats_per_tick_seconds, epoll;

static void watch(int fd, enum Role role) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  roles[fd] = role;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void listen_on(int port, enum Role role) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  struct sockaddr_in at = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // inherited by what it accepts
  if (bind(fd, (void *)&at, sizeof at) || listen(fd, 4096)) {
    perror("floor");
    exit(1);
  }
  watch(fd, role);
}

static void accept_all(int door, enum Role role) {
  for (int fd; (fd = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
    if (fd < FILES) watch(fd, role);
    else close(fd);
  }
}

static void forget(int fd) {
  if (roles[fd] == READER) {
    int last = readers[--reader_count];
    readers[place[fd]] = last;
    place[last] = place[fd];
  }
  roles[fd] = NONE;
  close(fd);
}

static void welcome(int fd) {
  char request[8192];
  if (read(fd, request, sizeof request) <= 0 || send(fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0) {
    forget(fd);
    return;
  }
  roles[fd] = READER;
  place[fd] = reader_count;
  readers[reader_count++] = fd;
}

// A reader whose buffer is full holds up all the others: the floor has no queues.
static void send_all(int fd, const char *bytes, size_t length) {
  struct pollfd writable = {.fd = fd, .events = POLLOUT};
  while (length) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && (errno != EAGAIN || poll(&writable, 1, 1000) <= 0)) return;
    if (sent > 0) bytes += sent, length -= (size_t)sent;
  }
}

static void broadcast(const char *body) {
  static char frame[1 << 20];
  size_t length = (size_t)snprintf(frame, sizeof frame, "data: %s\n\n", body);
  for (int i = 0; i < reader_count; i++) send_all(readers[i], frame, length);
}

static void take_publish(int fd) {
  static char request[1 << 20];
  ssize_t got = read(fd, request, sizeof request - 1);
  if (got <= 0) {
    forget(fd);
    return;
  }
  request[got] = 0;
  char *body = memmem(request, (size_t)got, "\r\n\r\n", 4);
  if (!body) return;
  send_all(fd, accepted, sizeof accepted - 1);
  broadcast(body + 4);
}

// Everybody once in HEARTBEAT_SECONDS, a share at each tick.
static void beat(int timer) {
  unsigned long long ticks;
  if (read(timer, &ticks, sizeof ticks) < 0) return;
  int share = reader_count / (heartbeats_per_tick_seconds * TICKS_PER_SECOND) + 1;
  for (int i = 0; i < share && reader_count; i++) send_all(readers[next_heartbeat++ % reader_count], ":\n\n", 3);
}

static void start_heartbeats(int seconds) {
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct timespec tick = {.tv_nsec = 1000000000 / TICKS_PER_SECOND};
  struct itimerspec spec = {.it_value = tick, .it_interval = tick};
  heartbeats_per_tick_seconds = seconds;
  timerfd_settime(timer, 0, &spec, NULL);
  watch(timer, TIMER);
}

static void handle(int fd) {
  char ignored[4096];
  switch (roles[fd]) {
    case READER_DOOR: accept_all(fd, ARRIVED); break;
    case PUBLISH_DOOR: accept_all(fd, PUBLISHER); break;
    case TIMER: beat(fd); break;
    case ARRIVED: welcome(fd); break;
    case READER:
      if (read(fd, ignored, sizeof ignored) <= 0) forget(fd);
      break;
    case PUBLISHER: take_publish(fd); break;
    case NONE: break;
  }
}

int main(int argc, char **argv) {
  struct epoll_event events[256];
  struct rlimit limit;
  if (argc < 3) return 2;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  epoll = epoll_create1(0);
  listen_on(atoi(argv[1]), READER_DOOR);
  listen_on(atoi(argv[2]), PUBLISH_DOOR);
  if (argc > 3 && atoi(argv[3]) > 0) start_heartbeats(atoi(argv[3]));
  for (;;) {
    int ready = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < ready; i++) handle(events[i].data.fd);
  }
}
