// SPDX-License-Identifier: Apache-2.0
//
// A small device in C, on protocols/bulkhead-device.h alone: the proof that the protocol is
// not Swift's. Its channel is descriptor 3. Eight ports, one transaction at a time:
//   +0 scratch (live, 8/16/32 bits); a write of EEh raises interrupt 5
//   +1 counts posted writes; a live read gives the number
//   +2 mirrored: 5Ah ^ scratch, as a byte
//   +3 counts its own reads, 1 first
//   +4 reads give an increasing sequence, writes are summed up; blocks too
//   +6 the sum's low byte
// It ends with code 0 after quit or when the channel closes, and with 1 and a reason on
// descriptor 2 when the core breaks the protocol.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../protocols/bulkhead-device.h"

enum { CHANNEL = 3, MOST_FDS = 32 };

static uint8_t *lane, *page;
static int line = -1;
static uint32_t slots;
static uint32_t sequences[BH_LANE_MOST_SLOTS];
static uint32_t channel_ready;

// The state, in the order of the layout; its values in the page are these bytes.
struct state {
  uint32_t scratch, posted, counter;
  uint16_t sequence, sum;
  uint8_t edge;
} __attribute__((packed));
static struct state state;
static uint64_t commits;
static uint32_t tail;
static const char layout[] =
    "\4\7scratch" "\4\6posted" "\4\7counter" "\2\10sequence" "\2\3sum" "\1\4edge";

static _Noreturn void die(const char *reason) {
  fprintf(stderr, "example-device: %s\n", reason);
  exit(1);
}

static void futex_wait(void *word, uint32_t expected) {
  syscall(SYS_futex, word, FUTEX_WAIT, expected, NULL, NULL, 0);
}
static void futex_wake(void *word) { syscall(SYS_futex, word, FUTEX_WAKE, 1 << 30, NULL, NULL, 0); }

// ---- The channel.

static void send_message(uint32_t request, uint32_t flags, uint32_t sequence, const uint8_t *payload,
                         size_t count) {
  uint8_t bytes[BH_LONGEST_MESSAGE];
  struct bh_header h = {request, flags, sequence, (uint32_t)count};
  bh_put_header(bytes, h);
  if (count) memcpy(bytes + BH_HEADER_BYTES, payload, count);
  if (send(CHANNEL, bytes, BH_HEADER_BYTES + count, MSG_NOSIGNAL) < 0) {
    if (errno == EPIPE || errno == ECONNRESET) exit(0);
    die("cannot send");
  }
}

// Receives one message; payload must have room for BH_LONGEST_MESSAGE.
static size_t receive_message(struct bh_header *h, uint8_t *payload, int *fds, int *fd_count) {
  uint8_t bytes[BH_LONGEST_MESSAGE];
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(MOST_FDS * sizeof(int))];
  struct iovec io = {bytes, sizeof bytes};
  struct msghdr m = {
      .msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t got;
  do {
    got = recvmsg(CHANNEL, &m, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got == 0 || (got < 0 && errno == ECONNRESET)) exit(0);
  if (got < 0) die("cannot receive");
  *fd_count = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n && *fd_count < MOST_FDS; i++) {
      memcpy(&fds[(*fd_count)++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
  }
  if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) die("message or descriptors too many");
  const char *wrong = bh_get_header(bytes, (size_t)got, h);
  if (wrong) die(wrong);
  memcpy(payload, bytes + BH_HEADER_BYTES, h->size);
  return h->size;
}

// Receives the reply to a request.
static size_t expect_reply(uint32_t request, uint32_t sequence, uint8_t *payload, int *fds,
                           int *fd_count) {
  struct bh_header h;
  size_t count = receive_message(&h, payload, fds, fd_count);
  if (h.request != request || h.sequence != sequence || !(h.flags & BH_FLAG_REPLY)) {
    die("not the reply that was expected");
  }
  if (h.flags & BH_FLAG_REFUSAL) {
    struct bh_reader r = {payload, count, 0, 0};
    size_t length;
    const uint8_t *reason = bh_get_bytes(&r, BH_LONGEST_REASON, &length);
    if (!reason || !bh_finished(&r)) die("malformed refusal");
    fprintf(stderr, "example-device: refused: %.*s\n", (int)length, (const char *)reason);
    exit(1);
  }
  return count;
}

// Maps a descriptor of at least `count` bytes that can neither shrink nor grow.
static uint8_t *map(int fd, size_t count, int protection) {
  struct stat status;
  int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) die("a descriptor is not a memfd");
  if ((seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW)) {
    die("a memfd is not sealed");
  }
  if (fstat(fd, &status) < 0 || (size_t)status.st_size < count) die("a memfd is too short");
  void *address = mmap(NULL, count, protection, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) die("cannot map a memfd");
  return address;
}

static void check_event(int fd) {
  char path[64], target[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t count = readlink(path, target, sizeof target - 1);
  if (count < 0) return;  // no /proc: a wrong descriptor shows on the first write
  target[count] = 0;
  if (strcmp(target, "anon_inode:[eventfd]")) die("a line is not an event");
}

static void put_register(struct bh_writer *w, uint32_t offset, uint32_t bytes, uint8_t read,
                         uint8_t write) {
  bh_put(w, 0, 2);
  bh_put(w, offset, 4);
  bh_put(w, bytes, 4);
  bh_put(w, read, 1);
  bh_put(w, write, 1);
  bh_put(w, 0, 2);   // entry
  bh_put(w, 0, 8);   // frequency
  bh_put(w, 32, 1);  // bits
}

static int handshake(void) {
  static uint8_t bytes[BH_LONGEST_MESSAGE];
  struct bh_writer w = {bytes, sizeof bytes, 0, 0};
  int fds[MOST_FDS], fd_count;
  bh_put(&w, BH_MAGIC, 4);
  bh_put(&w, BH_VERSION, 2);
  bh_put(&w, 0, 8);
  bh_put_bytes(&w, "example", 7);
  send_message(BH_REQUEST_HELLO, 0, 1, bytes, w.count);

  struct bh_reader r = {bytes, expect_reply(BH_REQUEST_HELLO, 1, bytes, fds, &fd_count), 0, 0};
  size_t length;
  if (bh_get(&r, 4) != BH_MAGIC) die("the magic number is wrong");
  if (bh_get(&r, 2) != BH_VERSION) die("the core speaks another version");
  bh_get(&r, 8);
  bh_get_bytes(&r, 31, &length);
  if (!bh_finished(&r)) die("malformed hello");

  w.count = 0;
  bh_put(&w, 1, 4);  // one range of ports
  bh_put(&w, 0, 2);
  bh_put(&w, 0x560, 2);
  bh_put(&w, 8, 2);
  bh_put(&w, 0, 1);
  bh_put(&w, 0, 4);  // memories
  bh_put(&w, 0, 4);  // functions
  bh_put(&w, 2, 4);  // registers
  put_register(&w, 1, 1, BH_REGISTER_KIND_LIVE, BH_REGISTER_KIND_POSTED);
  put_register(&w, 2, 1, BH_REGISTER_KIND_MIRRORED, BH_REGISTER_KIND_LIVE);
  bh_put(&w, 1, 4);  // one line
  bh_put(&w, 5, 1);
  bh_put(&w, 0, 1);
  bh_put(&w, 0, 4);  // backings
  bh_put(&w, 0, 4);  // descriptors
  bh_put(&w, 0, 4);  // no bounce buffer
  if (w.full) die("claims too long");
  send_message(BH_REQUEST_CLAIM, 0, 2, bytes, w.count);

  struct bh_reader g = {bytes, expect_reply(BH_REQUEST_CLAIM, 2, bytes, fds, &fd_count), 0, 0};
  slots = (uint32_t)bh_get(&g, 2);
  uint64_t restart = bh_get(&g, 1);
  uint64_t page_bytes = bh_get(&g, 4);
  if (!bh_finished(&g)) die("malformed grant");
  if (slots < 1 || slots > BH_LANE_MOST_SLOTS || restart > 1) die("malformed grant");
  if (page_bytes < BH_STATE_BULK_OFFSET || page_bytes > 64u << 20) die("malformed grant");
  if (fd_count != 4) die("wrong number of descriptors in the grant");
  lane = map(fds[0], bh_lane_bytes(slots), PROT_READ | PROT_WRITE);
  if (!bh_lane_is_valid(lane, slots)) die("the lane's header is wrong");
  map(fds[1], BH_CLOCK_BYTE_COUNT, PROT_READ);
  page = map(fds[2], page_bytes, PROT_READ | PROT_WRITE);
  line = fds[3];
  check_event(line);
  return restart != 0;
}

// ---- The device.

static uint64_t mask(uint8_t width) { return width == 8 ? ~0ull : (1ull << (8 * width)) - 1; }

static uint64_t read_register(uint64_t offset, uint8_t width) {
  switch (offset) {
    case 0: return state.scratch & mask(width);
    case 1: return state.posted & mask(width);
    case 2: return 0x5A ^ (state.scratch & 0xFF);
    case 3: return ++state.counter & mask(width);
    case 4: return state.sequence++ & mask(width);
    case 6: return state.sum & 0xFF;
    default: return mask(width);
  }
}

static void write_register(uint64_t offset, uint64_t value, uint8_t width) {
  if (offset == 0) {
    state.scratch = (uint32_t)((state.scratch & ~mask(width)) | (value & mask(width)));
    state.edge = (value & mask(width)) == 0xEE;
  } else if (offset == 1) {
    state.posted++;
  } else if (offset == 4) {
    state.sum = (uint16_t)(state.sum + (value & mask(width)));
  }
}

static void commit(void) {
  bh_state_commit(page, ++commits, tail, sequences, slots, &state, sizeof state);
}

// After a commit, before the answer: what the guest may see of the new state.
static void show(void) {
  bh_mirror(lane, 0, 0x5A ^ (state.scratch & 0xFF), BH_LANE_ENTRY_VALID);
  uint64_t one = 1;
  if (state.edge && write(line, &one, sizeof one) != sizeof one && errno != EAGAIN) {
    die("cannot signal the line");
  }
}

static void answer(uint32_t slot) {
  if (bh_slot_answer(lane, slot)) futex_wake(lane + bh_slot(slot) + BH_LANE_SLOT_STATE);
}

// Does every posted write there is; returns whether there was one.
static int do_posted(void) {
  uint32_t head = bh_head(lane);
  if (head == tail) return 0;
  if (head - tail > BH_LANE_RING_CAPACITY) die("the ring's head is wrong");
  state.edge = 0;
  while (tail != head) {
    struct bh_access a;
    if (!bh_posted_get(lane, tail, &a)) die("malformed posted write");
    if (a.region == 0) write_register(a.offset, a.value, a.width);
    tail++;
  }
  commit();
  show();
  bh_set_tail(lane, tail);
  return 1;
}

static void do_request(uint32_t slot) {
  struct bh_access a;
  uint64_t value = 0;
  uint32_t items = 0;
  uint8_t block[BH_LANE_BLOCK_BYTES];
  if (!bh_slot_get(lane, slot, &a)) die("malformed request in a slot");
  state.edge = 0;
  if (a.region != 0) {
    value = mask(a.width);
  } else if (a.operation == BH_SLOT_OPERATION_READ) {
    value = read_register(a.offset, a.width);
  } else if (a.operation == BH_SLOT_OPERATION_WRITE) {
    write_register(a.offset, a.value, a.width);
  } else if (a.operation == BH_SLOT_OPERATION_READ_BLOCK) {
    for (; items < a.items; items++) {
      uint64_t item = read_register(a.offset, a.width);
      memcpy(block + (size_t)items * a.width, &item, a.width);
    }
    memcpy(bh_slot_block(lane, slot), block, (size_t)items * a.width);
  } else {
    memcpy(block, bh_slot_block(lane, slot), (size_t)a.items * a.width);
    for (; items < a.items; items++) {
      write_register(a.offset, bh_plain(block, (size_t)items * a.width, a.width), a.width);
    }
  }
  bh_slot_prepare(lane, slot, value, items);
  sequences[slot] = bh_slot_sequence(lane, slot);
  commit();
  show();
  answer(slot);
}

// Goes on from the last record; a request that it has in is answered, not done again.
static void restore(void) {
  size_t record = bh_state_record(page);
  if (!record) return;
  uint32_t word = (uint32_t)bh_plain(page, record + BH_STATE_RECORD_LAYOUT_WORD, 4);
  if (word >> 17 || (word & 0xFFFF) != sizeof layout - 1 ||
      memcmp(page + bh_state_layout(word), layout, sizeof layout - 1) ||
      bh_plain(page, record + BH_STATE_RECORD_COUNT, 4) != sizeof state) {
    die("the state page holds the state of another device");
  }
  memcpy(&state, page + record + BH_STATE_RECORD_VALUES, sizeof state);
  memcpy(sequences, page + record + BH_STATE_RECORD_SEQUENCES, 4 * (size_t)slots);
  commits = bh_plain(page, record + BH_STATE_RECORD_NUMBER, 8);
  tail = (uint32_t)bh_plain(page, record + BH_STATE_RECORD_TAIL, 4);
}

static void resume_service(void) {
  show();
  bh_set_tail(lane, tail);
  for (uint32_t slot = 0; slot < slots; slot++) {
    if (bh_slot_is_requested(lane, slot) && bh_slot_sequence(lane, slot) == sequences[slot]) {
      answer(slot);
    }
  }
}

static void do_message(void) {
  static uint8_t payload[BH_LONGEST_MESSAGE];
  struct bh_header h;
  int fds[MOST_FDS], fd_count;
  size_t count = receive_message(&h, payload, fds, &fd_count);
  if (h.flags) die("a reply that nobody waits for");
  if (fd_count) die("descriptors that do not belong to the message");
  switch (h.request) {
    case BH_REQUEST_RESET:
    case BH_REQUEST_WAKE:
    case BH_REQUEST_PAUSE:
    case BH_REQUEST_RESUME:
    case BH_REQUEST_QUIT:
      if (count) die("bytes after the message's end");
      break;
    default: die("a request that this device does not know");
  }
  if (h.request == BH_REQUEST_RESET || h.request == BH_REQUEST_WAKE) {
    memset(&state, 0, sizeof state);
    commit();
    show();
  }
  send_message(h.request, BH_FLAG_REPLY, h.sequence, NULL, 0);
  if (h.request == BH_REQUEST_QUIT) exit(0);
}

// Watches the channel while the main thread sleeps on the doorbell.
static void *watch_channel(void *unused) {
  (void)unused;
  for (;;) {
    struct pollfd p = {CHANNEL, POLLIN, 0};
    if (poll(&p, 1, -1) < 1) continue;
    __atomic_store_n(&channel_ready, 1u, __ATOMIC_SEQ_CST);
    bh_ring(lane);
    futex_wake(lane + BH_LANE_DOORBELL_OFFSET);
    while (__atomic_load_n(&channel_ready, __ATOMIC_SEQ_CST)) futex_wait(&channel_ready, 1);
  }
  return NULL;
}

int main(void) {
  pthread_t thread;
  int is_restart = handshake();
  if (is_restart) restore();
  bh_state_begin(page, layout, sizeof layout - 1);
  commit();
  bh_awake(lane);
  resume_service();
  if (pthread_create(&thread, NULL, watch_channel, NULL)) die("cannot start a thread");
  send_message(BH_REQUEST_READY, 0, 3, NULL, 0);
  for (;;) {
    uint32_t count = bh_doorbell(lane);
    int worked = do_posted();
    for (uint32_t slot = 0; slot < slots; slot++) {
      if (!bh_slot_is_requested(lane, slot)) continue;
      do_posted();  // whatever was posted before this request comes first
      do_request(slot);
      worked = 1;
    }
    if (__atomic_load_n(&channel_ready, __ATOMIC_SEQ_CST)) {
      do_message();
      __atomic_store_n(&channel_ready, 0u, __ATOMIC_SEQ_CST);
      futex_wake(&channel_ready);
      worked = 1;
    }
    if (worked) continue;
    if (bh_may_sleep(lane, count)) futex_wait(lane + BH_LANE_DOORBELL_OFFSET, count);
    bh_awake(lane);
  }
}
