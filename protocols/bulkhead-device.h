// SPDX-License-Identifier: Apache-2.0
//
// Bulkhead's device protocol, version 1, for C11 and C++17 (device.md is the text).
//
// Needs no library. Everything that is shared between processes is read and written with the
// __atomic built-ins of GCC and Clang, which are C11's atomics on plain objects, so that the
// same text serves both languages. Little-endian machines only, as the protocol is.
#ifndef BULKHEAD_DEVICE_H
#define BULKHEAD_DEVICE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Constants: the names and values of device.json.
#define BH_MAGIC 0x50444842u
#define BH_VERSION 1u
#define BH_HEADER_BYTES 16u
#define BH_LONGEST_MESSAGE 16384u
#define BH_FLAG_REPLY 1u
#define BH_FLAG_REFUSAL 2u
#define BH_LONGEST_REASON 400u
#define BH_MOST_REGIONS 64u
#define BH_MOST_REGISTERS 256u
#define BH_MOST_WINDOWS 8u
#define BH_NO_MEMORY 65535u
#define BH_MOST_DESCRIPTORS 32u
#define BH_MOST_TEXT 12000u
#define BH_STATE_ARRAY 255u
#define BH_REQUEST_HELLO 1u
#define BH_REQUEST_CLAIM 2u
#define BH_REQUEST_READY 3u
#define BH_REQUEST_RESET 4u
#define BH_REQUEST_PAUSE 5u
#define BH_REQUEST_RESUME 6u
#define BH_REQUEST_QUIT 7u
#define BH_REQUEST_DMA 8u
#define BH_REQUEST_MOVE_REGION 9u
#define BH_REQUEST_ROUTE_PIRQ 10u
#define BH_REQUEST_POWER 11u
#define BH_REQUEST_SCREENDUMP 12u
#define BH_REQUEST_INPUT 13u
#define BH_REQUEST_MEDIUM 14u
#define BH_REQUEST_HOLD 15u
#define BH_REQUEST_POWER_BUTTON 16u
#define BH_REQUEST_POINTER 30u
#define BH_REQUEST_DRIVES 31u
#define BH_REQUEST_NOTICE 32u
#define BH_REQUEST_MAP_WINDOW 40u
#define BH_REQUEST_WAKE 41u
#define BH_REQUEST_RESIZE 60u
#define BH_REQUEST_SEND_BREAK 61u
#define BH_REQUEST_SNAPSHOT 50u
#define BH_REGISTER_KIND_LIVE 0u
#define BH_REGISTER_KIND_POSTED 1u
#define BH_REGISTER_KIND_MIRRORED 2u
#define BH_REGISTER_KIND_CLOCKED 3u
#define BH_BAR_CLAIM_KIND_PORTS 0u
#define BH_BAR_CLAIM_KIND_MEMORY 1u
#define BH_BAR_CLAIM_KIND_PREFETCHABLE_MEMORY 2u
#define BH_BAR_CLAIM_KIND_ROM 3u
#define BH_BACKING_CLAIM_KIND_READ_WRITE 0u
#define BH_BACKING_CLAIM_KIND_ROM 1u
#define BH_DESCRIPTOR_CLAIM_KIND_PRD 0u
#define BH_DESCRIPTOR_CLAIM_KIND_FW_CFG 1u
#define BH_DMA_REQUEST_DIRECTION_TO_GUEST 0u
#define BH_DMA_REQUEST_DIRECTION_FROM_GUEST 1u
#define BH_DMA_REQUEST_DIRECTION_CLOSE 2u
#define BH_POWER_REQUEST_ACTION_RESET 0u
#define BH_POWER_REQUEST_ACTION_POWER_OFF 1u
#define BH_POWER_REQUEST_ACTION_EXIT 2u
#define BH_POWER_REQUEST_ACTION_SUSPEND 3u
#define BH_POWER_REQUEST_ACTION_WAKE 4u
#define BH_MEDIUM_REQUEST_ACTION_EJECT 0u
#define BH_MEDIUM_REQUEST_ACTION_INSERT 1u
#define BH_CORE_SETTINGS_ACCELERATOR_AUTO 0u
#define BH_CORE_SETTINGS_ACCELERATOR_KVM 1u
#define BH_CORE_SETTINGS_ACCELERATOR_SOFT 2u
#define BH_CORE_SETTINGS_ON_PANIC_NONE 0u
#define BH_CORE_SETTINGS_ON_PANIC_RUN 1u
#define BH_CORE_SETTINGS_ON_PANIC_PAUSE 2u
#define BH_CORE_SETTINGS_ON_PANIC_STOP 3u
#define BH_DRIVE_SNAPSHOT_REQUEST_ACTION_LIST 0u
#define BH_DRIVE_SNAPSHOT_REQUEST_ACTION_CREATE 1u
#define BH_DRIVE_SNAPSHOT_REQUEST_ACTION_CHECK 2u
#define BH_DRIVE_SNAPSHOT_REQUEST_ACTION_APPLY 3u
#define BH_DRIVE_SNAPSHOT_REQUEST_ACTION_DELETE 4u
#define BH_DRIVE_SNAPSHOT_REQUEST_ACTION_OVERLAY 5u
#define BH_STATE_FILE_REQUEST_ACTION_LIST 0u
#define BH_STATE_FILE_REQUEST_ACTION_CREATE 1u
#define BH_STATE_FILE_REQUEST_ACTION_COMMIT 2u
#define BH_STATE_FILE_REQUEST_ACTION_DISCARD 3u
#define BH_STATE_FILE_REQUEST_ACTION_OPEN 4u
#define BH_STATE_FILE_REQUEST_ACTION_DELETE 5u
#define BH_OVERLAY_REQUEST_ACTION_CREATE 0u
#define BH_OVERLAY_REQUEST_ACTION_USE 1u
#define BH_OVERLAY_REQUEST_ACTION_DISCARD 2u
#define BH_NOTICE_MESSAGE_KIND_HOST_ERROR 0u
#define BH_NOTICE_MESSAGE_KIND_TRAY_MOVED 1u
#define BH_NOTICE_MESSAGE_KIND_PANICKED 2u
#define BH_NOTICE_MESSAGE_KIND_CRASH_LOADED 3u
#define BH_NOTICE_MESSAGE_ACTION_REPORT 0u
#define BH_NOTICE_MESSAGE_ACTION_IGNORE 1u
#define BH_NOTICE_MESSAGE_ACTION_HOLD 2u
#define BH_MONITOR_SETTINGS_STREAM_NONE 0u
#define BH_MONITOR_SETTINGS_STREAM_QMP 1u
#define BH_MONITOR_SETTINGS_STREAM_HUMAN 2u
#define BH_MONITOR_SETTINGS_STREAM_HUMAN_AND_SERIAL 3u
#define BH_CORE_SETTINGS_ON_FAULT_RESTART 0u
#define BH_CORE_SETTINGS_ON_FAULT_PAUSE 1u
#define BH_CORE_SETTINGS_ON_FAULT_STOP 2u
#define BH_IDE_SETTINGS_DRIVE_FORMAT_RAW 0u
#define BH_IDE_SETTINGS_DRIVE_FORMAT_QCOW2 1u
#define BH_IDE_SETTINGS_DRIVE_ERROR_POLICY_REPORT 0u
#define BH_IDE_SETTINGS_DRIVE_ERROR_POLICY_IGNORE 1u
#define BH_IDE_SETTINGS_DRIVE_ERROR_POLICY_HOLD_WHEN_FULL 2u
#define BH_IDE_SETTINGS_DRIVE_ERROR_POLICY_HOLD 3u
#define BH_IDE_SETTINGS_DRIVE_CACHE_WRITEBACK 0u
#define BH_IDE_SETTINGS_DRIVE_CACHE_WRITETHROUGH 1u
#define BH_IDE_SETTINGS_DRIVE_CACHE_NONE 2u
#define BH_SERIAL_SETTINGS_BACKEND_NULL 0u
#define BH_SERIAL_SETTINGS_BACKEND_STREAMS 1u
#define BH_SERIAL_SETTINGS_BACKEND_DUPLEX 2u
#define BH_SERIAL_SETTINGS_BACKEND_FILE 3u
#define BH_SERIAL_SETTINGS_BACKEND_SOCKET 4u
#define BH_FAULT_MESSAGE_KIND_DEADLINE 0u
#define BH_FAULT_MESSAGE_KIND_PROTOCOL_BROKEN 1u
#define BH_FAULT_MESSAGE_KIND_GONE 2u
#define BH_FAULT_MESSAGE_KIND_POISON 3u
#define BH_FAULT_MESSAGE_KIND_OPERATOR_RESTART 4u
#define BH_LOG_LEVEL_ERROR 3u
#define BH_LOG_LEVEL_WARNING 4u
#define BH_LOG_LEVEL_NOTICE 5u
#define BH_LOG_LEVEL_INFO 6u
#define BH_LOG_LEVEL_DEBUG 7u
#define BH_SLOT_OPERATION_READ 1u
#define BH_SLOT_OPERATION_WRITE 2u
#define BH_SLOT_OPERATION_READ_BLOCK 3u
#define BH_SLOT_OPERATION_WRITE_BLOCK 4u
#define BH_SLOT_STATE_IDLE 0u
#define BH_SLOT_STATE_REQUESTED 1u
#define BH_SLOT_STATE_ANSWERED 2u
#define BH_SLOT_STATE_COPYING 3u
#define BH_LANE_MAGIC 0x4E4C4842u
#define BH_LANE_VERSION 1u
#define BH_LANE_MAGIC_OFFSET 0u
#define BH_LANE_VERSION_OFFSET 4u
#define BH_LANE_SLOT_COUNT_OFFSET 8u
#define BH_LANE_DOORBELL_OFFSET 64u
#define BH_LANE_SLEEPING_OFFSET 128u
#define BH_LANE_HEAD_OFFSET 192u
#define BH_LANE_TAIL_OFFSET 256u
#define BH_LANE_COUNTERS_OFFSET 512u
#define BH_LANE_COUNTERS 64u
#define BH_LANE_REGISTERS_OFFSET 1024u
#define BH_LANE_REGISTER_ENTRIES 128u
#define BH_LANE_ENTRY_VALID 1u
#define BH_LANE_ENTRY_VALID_WITH_POSTS 2u
#define BH_LANE_RING_OFFSET 4096u
#define BH_LANE_RING_CAPACITY 1024u
#define BH_LANE_RING_ENTRY_BYTES 32u
#define BH_LANE_SLOTS_OFFSET 36864u
#define BH_LANE_SLOT_BYTES 8192u
#define BH_LANE_MOST_SLOTS 255u
#define BH_LANE_SLOT_STATE 0u
#define BH_LANE_SLOT_OPERATION 4u
#define BH_LANE_SLOT_WIDTH 5u
#define BH_LANE_SLOT_REGION 6u
#define BH_LANE_SLOT_REGISTER_OFFSET 8u
#define BH_LANE_SLOT_VALUE 16u
#define BH_LANE_SLOT_ITEMS 24u
#define BH_LANE_SLOT_SEQUENCE 28u
#define BH_LANE_SLOT_DESCRIPTOR_BYTES 32u
#define BH_LANE_SLOT_WINDOW 36u
#define BH_LANE_SLOT_REPLY_VALUE 64u
#define BH_LANE_SLOT_REPLY_ITEMS 72u
#define BH_LANE_SLOT_WAITING 128u
#define BH_LANE_SLOT_COPY_WINDOW 192u
#define BH_LANE_SLOT_COPY_DIRECTION 196u
#define BH_LANE_SLOT_COPY_WINDOW_OFFSET 200u
#define BH_LANE_SLOT_COPY_BOUNCE_OFFSET 208u
#define BH_LANE_SLOT_COPY_BYTE_COUNT 212u
#define BH_LANE_SLOT_COPY_DONE 216u
#define BH_LANE_SLOT_BLOCK 4096u
#define BH_LANE_BLOCK_BYTES 4096u
#define BH_CLOCK_BYTE_COUNT 4096u
#define BH_CLOCK_SEQUENCE_OFFSET 0u
#define BH_CLOCK_RUNNING_OFFSET 4u
#define BH_CLOCK_VALUE_OFFSET 8u
#define BH_STATE_MAGIC 0x54534842u
#define BH_STATE_VERSION 1u
#define BH_STATE_MAGIC_OFFSET 0u
#define BH_STATE_VERSION_OFFSET 4u
#define BH_STATE_ACTIVE_OFFSET 8u
#define BH_STATE_LAYOUT_WORD_OFFSET 12u
#define BH_STATE_LAYOUT_OFFSET 4096u
#define BH_STATE_MOST_LAYOUT_BYTES 12288u
#define BH_STATE_RECORDS_OFFSET 28672u
#define BH_STATE_RECORD_BYTES 65536u
#define BH_STATE_BULK_OFFSET 159744u
#define BH_STATE_RECORD_NUMBER 0u
#define BH_STATE_RECORD_TAIL 8u
#define BH_STATE_RECORD_COUNT 12u
#define BH_STATE_RECORD_SEQUENCES 16u
#define BH_STATE_RECORD_LAYOUT_WORD 1036u
#define BH_STATE_RECORD_VALUES 1040u
#define BH_STATE_MOST_VALUE_BYTES 64496u

#ifdef __cplusplus
extern "C" {
#endif

// ---- Messages: little-endian, unpadded.

// A message being put together; `full` says that it did not fit.
struct bh_writer {
  uint8_t *bytes;
  size_t room, count;
  int full;
};

static inline void bh_put(struct bh_writer *w, uint64_t value, size_t width) {
  if (w->full || w->room - w->count < width) {
    w->full = 1;
    return;
  }
  for (size_t i = 0; i < width; i++) w->bytes[w->count++] = (uint8_t)(value >> (8 * i));
}

static inline void bh_put_bytes(struct bh_writer *w, const void *bytes, size_t count) {
  bh_put(w, count, 4);
  if (w->full || w->room - w->count < count) {
    w->full = 1;
    return;
  }
  if (count) memcpy(w->bytes + w->count, bytes, count);
  w->count += count;
}

// A message being taken apart; `bad` says that it ended too early.
struct bh_reader {
  const uint8_t *bytes;
  size_t count, position;
  int bad;
};

static inline uint64_t bh_get(struct bh_reader *r, size_t width) {
  uint64_t value = 0;
  if (r->bad || r->count - r->position < width) {
    r->bad = 1;
    return 0;
  }
  for (size_t i = 0; i < width; i++) value |= (uint64_t)r->bytes[r->position++] << (8 * i);
  return value;
}

// Takes counted bytes; returns NULL, and marks the reader bad, when there are more than `most`.
static inline const uint8_t *bh_get_bytes(struct bh_reader *r, size_t most, size_t *count) {
  const uint8_t *start;
  *count = (size_t)bh_get(r, 4);
  if (r->bad || *count > most || r->count - r->position < *count) {
    r->bad = 1;
    *count = 0;
    return NULL;
  }
  start = r->bytes + r->position;
  r->position += *count;
  return start;
}

// Whether everything was there and nothing is left.
static inline int bh_finished(const struct bh_reader *r) {
  return !r->bad && r->position == r->count;
}

struct bh_header {
  uint32_t request, flags, sequence, size;
};

static inline void bh_put_header(uint8_t bytes[16], struct bh_header h) {
  struct bh_writer w = {bytes, 16, 0, 0};
  bh_put(&w, h.request, 4);
  bh_put(&w, h.flags, 4);
  bh_put(&w, h.sequence, 4);
  bh_put(&w, h.size, 4);
}

// Reads the header of a whole message; returns NULL, or what is wrong with it.
static inline const char *bh_get_header(const uint8_t *bytes, size_t count, struct bh_header *h) {
  struct bh_reader r = {bytes, count, 0, 0};
  h->request = (uint32_t)bh_get(&r, 4);
  h->flags = (uint32_t)bh_get(&r, 4);
  h->sequence = (uint32_t)bh_get(&r, 4);
  h->size = (uint32_t)bh_get(&r, 4);
  if (r.bad) return "message shorter than its header";
  if (h->flags & ~(BH_FLAG_REPLY | BH_FLAG_REFUSAL)) return "unknown flags";
  if (h->flags == BH_FLAG_REFUSAL) return "a refusal that is no reply";
  if (h->size != count - BH_HEADER_BYTES) return "size differs from the message's";
  return NULL;
}

// ---- Shared words.

static inline uint32_t bh_load32(const uint8_t *memory, size_t at) {
  return __atomic_load_n((const uint32_t *)(const void *)(memory + at), __ATOMIC_SEQ_CST);
}
static inline void bh_store32(uint8_t *memory, size_t at, uint32_t value) {
  __atomic_store_n((uint32_t *)(void *)(memory + at), value, __ATOMIC_SEQ_CST);
}
static inline uint64_t bh_load64(const uint8_t *memory, size_t at) {
  return __atomic_load_n((const uint64_t *)(const void *)(memory + at), __ATOMIC_ACQUIRE);
}
static inline void bh_store64(uint8_t *memory, size_t at, uint64_t value) {
  __atomic_store_n((uint64_t *)(void *)(memory + at), value, __ATOMIC_RELEASE);
}
static inline uint64_t bh_plain(const uint8_t *memory, size_t at, size_t width) {
  uint64_t value = 0;
  memcpy(&value, memory + at, width);
  return value;
}

// ---- The lane (section 7).

static inline size_t bh_lane_bytes(uint32_t slots) {
  return BH_LANE_SLOTS_OFFSET + (size_t)slots * BH_LANE_SLOT_BYTES;
}
static inline size_t bh_slot(uint32_t slot) { return bh_lane_bytes(slot); }

// Whether the memory begins as a lane with that many slots does.
static inline int bh_lane_is_valid(const uint8_t *lane, uint32_t slots) {
  return bh_load32(lane, BH_LANE_MAGIC_OFFSET) == BH_LANE_MAGIC &&
         bh_load32(lane, BH_LANE_VERSION_OFFSET) == BH_LANE_VERSION &&
         bh_load32(lane, BH_LANE_SLOT_COUNT_OFFSET) == slots;
}

// The doorbell's count; take it before looking for work.
static inline uint32_t bh_doorbell(const uint8_t *lane) {
  return bh_load32(lane, BH_LANE_DOORBELL_OFFSET);
}
// Says that the device is about to sleep; returns whether it may: then wait (futex) while the
// doorbell is `count`. Call bh_awake afterwards in either case.
static inline int bh_may_sleep(uint8_t *lane, uint32_t count) {
  bh_store32(lane, BH_LANE_SLEEPING_OFFSET, 1);
  return bh_doorbell(lane) == count;
}
static inline void bh_awake(uint8_t *lane) { bh_store32(lane, BH_LANE_SLEEPING_OFFSET, 0); }
// Rings; returns whether a sleeper is to be woken (futex).
static inline int bh_ring(uint8_t *lane) {
  __atomic_fetch_add((uint32_t *)(void *)(lane + BH_LANE_DOORBELL_OFFSET), 1u, __ATOMIC_SEQ_CST);
  return bh_load32(lane, BH_LANE_SLEEPING_OFFSET) != 0;
}

// One register access.
struct bh_access {
  uint8_t operation, width;
  uint16_t region;
  uint64_t offset, value;
  uint32_t items, descriptor_bytes, window;
};

static inline int bh_is_width(uint8_t width) {
  return width == 1 || width == 2 || width == 4 || width == 8;
}
static inline int bh_slot_is_requested(const uint8_t *lane, uint32_t slot) {
  return bh_load32(lane, bh_slot(slot) + BH_LANE_SLOT_STATE) == BH_SLOT_STATE_REQUESTED;
}
static inline uint32_t bh_slot_sequence(const uint8_t *lane, uint32_t slot) {
  return (uint32_t)bh_plain(lane, bh_slot(slot) + BH_LANE_SLOT_SEQUENCE, 4);
}
static inline uint8_t *bh_slot_block(uint8_t *lane, uint32_t slot) {
  return lane + bh_slot(slot) + BH_LANE_SLOT_BLOCK;
}
// Copies a request's fields out; returns 0 when they are not those of a request.
static inline int bh_slot_get(const uint8_t *lane, uint32_t slot, struct bh_access *a) {
  size_t at = bh_slot(slot);
  a->operation = (uint8_t)bh_plain(lane, at + BH_LANE_SLOT_OPERATION, 1);
  a->width = (uint8_t)bh_plain(lane, at + BH_LANE_SLOT_WIDTH, 1);
  a->region = (uint16_t)bh_plain(lane, at + BH_LANE_SLOT_REGION, 2);
  a->offset = bh_plain(lane, at + BH_LANE_SLOT_REGISTER_OFFSET, 8);
  a->value = bh_plain(lane, at + BH_LANE_SLOT_VALUE, 8);
  a->items = (uint32_t)bh_plain(lane, at + BH_LANE_SLOT_ITEMS, 4);
  a->descriptor_bytes = (uint32_t)bh_plain(lane, at + BH_LANE_SLOT_DESCRIPTOR_BYTES, 4);
  a->window = (uint32_t)bh_plain(lane, at + BH_LANE_SLOT_WINDOW, 4);
  return a->operation >= BH_SLOT_OPERATION_READ && a->operation <= BH_SLOT_OPERATION_WRITE_BLOCK &&
         bh_is_width(a->width) && a->items <= BH_LANE_BLOCK_BYTES / a->width &&
         a->descriptor_bytes <= BH_LANE_BLOCK_BYTES;
}
// Puts a reply in, which is not one yet.
static inline void bh_slot_prepare(uint8_t *lane, uint32_t slot, uint64_t value, uint32_t items) {
  memcpy(lane + bh_slot(slot) + BH_LANE_SLOT_REPLY_VALUE, &value, 8);
  memcpy(lane + bh_slot(slot) + BH_LANE_SLOT_REPLY_ITEMS, &items, 4);
}
// Makes the prepared reply one; returns whether the core is to be woken (futex on the state).
static inline int bh_slot_answer(uint8_t *lane, uint32_t slot) {
  bh_store32(lane, bh_slot(slot) + BH_LANE_SLOT_STATE, BH_SLOT_STATE_ANSWERED);
  return bh_load32(lane, bh_slot(slot) + BH_LANE_SLOT_WAITING) != 0;
}

static inline uint32_t bh_head(const uint8_t *lane) {
  return bh_load32(lane, BH_LANE_HEAD_OFFSET);
}
// Copies the posted write with a number out; returns 0 when it is not one.
static inline int bh_posted_get(const uint8_t *lane, uint32_t number, struct bh_access *a) {
  size_t at = BH_LANE_RING_OFFSET +
              (size_t)(number % BH_LANE_RING_CAPACITY) * BH_LANE_RING_ENTRY_BYTES;
  memset(a, 0, sizeof *a);
  a->operation = BH_SLOT_OPERATION_WRITE;
  a->items = 1;
  a->offset = bh_plain(lane, at, 8);
  a->value = bh_plain(lane, at + 8, 8);
  a->region = (uint16_t)bh_plain(lane, at + 16, 2);
  a->width = (uint8_t)bh_plain(lane, at + 18, 1);
  return bh_is_width(a->width);
}
static inline void bh_set_tail(uint8_t *lane, uint32_t number) {
  bh_store32(lane, BH_LANE_TAIL_OFFSET, number);
}
// Publishes a mirrored register; `flags` are BH_LANE_ENTRY_VALID and ..._VALID_WITH_POSTS.
static inline void bh_mirror(uint8_t *lane, uint32_t entry, uint32_t value, uint32_t flags) {
  bh_store64(lane, BH_LANE_REGISTERS_OFFSET + 8 * (size_t)entry, (uint64_t)value << 32 | flags);
}

// ---- The clock page (section 8).

// Returns 1 and the clock's value, or 0 when the page is being changed: try again. Add
// CLOCK_MONOTONIC in nanoseconds when *running.
static inline int bh_clock_get(const uint8_t *clock, uint64_t *value, int *running) {
  uint32_t before = bh_load32(clock, BH_CLOCK_SEQUENCE_OFFSET);
  *running = bh_load32(clock, BH_CLOCK_RUNNING_OFFSET) != 0;
  *value = bh_load64(clock, BH_CLOCK_VALUE_OFFSET);
  return !(before & 1) && bh_load32(clock, BH_CLOCK_SEQUENCE_OFFSET) == before;
}

// ---- The state page (section 9).

// The last whole record's offset, or 0 when there is none or the page is not a state page.
static inline size_t bh_state_record(const uint8_t *page) {
  uint32_t active = bh_load32(page, BH_STATE_ACTIVE_OFFSET);
  if (bh_plain(page, BH_STATE_MAGIC_OFFSET, 4) != BH_STATE_MAGIC) return 0;
  if (bh_plain(page, BH_STATE_VERSION_OFFSET, 4) != BH_STATE_VERSION) return 0;
  if (active != 1 && active != 2) return 0;
  return BH_STATE_RECORDS_OFFSET + (size_t)(active - 1) * BH_STATE_RECORD_BYTES;
}
static inline size_t bh_state_layout(uint32_t word) {
  return BH_STATE_LAYOUT_OFFSET + (size_t)(word >> 16 & 1) * BH_STATE_MOST_LAYOUT_BYTES;
}
// Writes the layout that the next commits refer to, beside that of the last record.
static inline void bh_state_begin(uint8_t *page, const void *layout, uint32_t count) {
  uint32_t magic = BH_STATE_MAGIC, version = BH_STATE_VERSION, area = 0;
  size_t record = bh_state_record(page);
  if (record) {
    area = ((uint32_t)bh_plain(page, record + BH_STATE_RECORD_LAYOUT_WORD, 4) >> 16 & 1) ^ 1;
  }
  memcpy(page + bh_state_layout(area << 16), layout, count);
  memcpy(page + BH_STATE_MAGIC_OFFSET, &magic, 4);
  memcpy(page + BH_STATE_VERSION_OFFSET, &version, 4);
  bh_store32(page, BH_STATE_LAYOUT_WORD_OFFSET, count | area << 16);
}
// Commits: when this returns, a successor goes on from here.
static inline void bh_state_commit(uint8_t *page, uint64_t number, uint32_t tail,
                                   const uint32_t *sequences, uint32_t slots, const void *values,
                                   uint32_t count) {
  uint32_t next = bh_load32(page, BH_STATE_ACTIVE_OFFSET) == 1 ? 1 : 0;
  uint32_t word = bh_load32(page, BH_STATE_LAYOUT_WORD_OFFSET);
  uint8_t *record = page + BH_STATE_RECORDS_OFFSET + (size_t)next * BH_STATE_RECORD_BYTES;
  memcpy(record + BH_STATE_RECORD_NUMBER, &number, 8);
  memcpy(record + BH_STATE_RECORD_TAIL, &tail, 4);
  memcpy(record + BH_STATE_RECORD_COUNT, &count, 4);
  memcpy(record + BH_STATE_RECORD_SEQUENCES, sequences, 4 * (size_t)slots);
  memcpy(record + BH_STATE_RECORD_LAYOUT_WORD, &word, 4);
  memcpy(record + BH_STATE_RECORD_VALUES, values, count);
  bh_store32(page, BH_STATE_ACTIVE_OFFSET, next + 1);
}

#ifdef __cplusplus
}
#endif

#endif
