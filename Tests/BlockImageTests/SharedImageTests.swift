// SPDX-License-Identifier: Apache-2.0

import Foundation
import ImageFiles
import LinuxSystem
import Synchronization
import Testing

@testable import BlockImage
@testable import image_writer

@Suite("An image that several threads use at once")
struct SharedImageTests {
  static let geometries = [
    "cluster_size=512,refcount_bits=64", "cluster_size=4096", "cluster_size=65536",
    "cluster_size=16k,extended_l2=on", "cluster_size=65536,data_file=d",
    "backing=below,cluster_size=4096", "backing=below,cluster_size=64k,extended_l2=on",
    "encrypted,cluster_size=4096", "compressed,cluster_size=65536",
  ]
  static let sectors = 3072
  static let workers = 4

  @Test(
    "each thread reads what it has written, and QEMU finds the same and no error",
    arguments: geometries, [QCOW2Options.TableWrites.through, .back])
  func twins(geometry: String, tables: QCOW2Options.TableWrites) throws {
    for seed in 1...environmentNumber("BULKHEAD_DISK_RUNS", 1) {
      try run(geometry, tables, UInt64(seed))
    }
  }

  private func run(_ geometry: String, _ tables: QCOW2Options.TableWrites, _ seed: UInt64) throws {
    let note = "\(geometry) \(tables) seed \(seed)"
    let bench = try Workbench()
    let start = try make(geometry, bench)
    var options = QCOW2Options()
    options.tables = tables
    options.l2CacheByteCount = 8192
    options.refcountCacheByteCount = 4096
    let isEncrypted = geometry.hasPrefix("encrypted")
    let image = try openFile(bench.path("i"), options: options, key: isEncrypted ? "key" : nil)
    let clusterSize = Int(image.header.clusterSize)
    let canSnapshot = !geometry.contains("data_file") && !isEncrypted
    let shared = SharedImage(.qcow2(image), decompressor: Inflater())
    let results = Mutex<[Int: ParallelWorker]>([:])
    let group = DispatchGroup()
    for number in 0..<Self.workers {
      group.enter()
      try LinuxSystem.Thread.start("worker \(number)") {
        var worker = ParallelWorker(number, seed, start, clusterSize)
        worker.work(on: shared)
        let done = worker
        results.withLock { $0[number] = done }
        group.leave()
      }
    }
    if canSnapshot {
      for number in 0..<3 {
        try shared.exclusively { (image) throws(BlockImageError) in
          _ = try image.withQCOW2 { (image) throws(BlockImageError) in
            _ = try image.createSnapshot("s\(number)", seconds: 1, nanoseconds: 0)
          }
        }
      }
    }
    try #require(group.wait(timeout: .now() + 120) == .success, "\(note): a thread hangs")
    try shared.flush()

    var twin = start
    for worker in results.withLock({ $0 }).values {
      #expect(worker.complaint == nil, "\(note): \(worker.complaint ?? "")")
      worker.merge(into: &twin)
    }
    if isEncrypted {
      try bench.judgeEncrypted(twin, note)
    } else {
      try bench.judge("i", twin, note)
    }
  }

  private func make(_ geometry: String, _ bench: Workbench) throws -> Twin {
    let size = Self.sectors * 512
    if geometry.hasPrefix("encrypted,") {
      try bench.createEncrypted(String(geometry.dropFirst(10)), size: size)
      return Twin(bytes: [UInt8](repeating: 0, count: size))
    }
    if geometry.hasPrefix("compressed,") {
      let bytes = RandomWork.data(77, count: Self.sectors)
      try bench.store(bytes, "raw")
      try bench.succeed(
        "qemu-img",
        [
          "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", String(geometry.dropFirst(11)), "raw",
          "i",
        ])
      return Twin(bytes: bytes)
    }
    return try QCOW2RandomWorkTests.make(geometry, bench, sectors: Self.sectors).0
  }

  /// What two threads do at once.
  enum Pair: CaseIterable {
    case data, tables, discard
  }

  @Test(
    "data and tables are read, and space is given back, while another read is under way",
    arguments: Pair.allCases)
  func parallel(pair: Pair) throws {
    let bench = try Workbench()
    // A table for each 2 MiB.
    let bytes = try bench.create("cluster_size=4096", size: "4M", commands: ["write -P 7 0 4M"])
    let meeting = Meeting()
    let storage = MeetingStorage(memory: SlowMemory(bytes), meeting: meeting)
    let image = try QCOW2Image<MeetingStorage, Inflater>(
      storage: storage, writable: true, decompressor: Inflater())
    let shared = SharedImage(.qcow2(image), decompressor: Inflater())
    if pair != .tables {
      var buffer = [UInt8](repeating: 0, count: 512)
      var span = buffer.mutableSpan
      for table in 0..<2 { try shared.read(into: &span, at: UInt64(table) << 21) }
    }
    meeting.isOpen.store(true, ordering: .sequentiallyConsistent)
    let group = DispatchGroup()
    for number in 0..<2 {
      group.enter()
      try LinuxSystem.Thread.start("reader") {
        if pair == .discard, number == 1 {
          try? shared.discard(at: 3 << 20, count: 65536)
        } else {
          var buffer = [UInt8](repeating: 0, count: 512)
          var span = buffer.mutableSpan
          try? shared.read(into: &span, at: UInt64(number) << 21 + 65536)
        }
        group.leave()
      }
    }
    // Each waits in the port for the other.
    #expect(group.wait(timeout: .now() + 60) == .success)
    #expect(meeting.most.load(ordering: .sequentiallyConsistent) == 2)
    let holes = meeting.holes.withLock { $0 }
    #expect(holes.reduce(0) { $0 + $1.count } == (pair == .discard ? 65536 : 0))
  }
}

extension SharedImageTests {
  @Test("threads that write to the same new clusters lose nothing, however long a transfer takes")
  func sameClusters() throws {
    let bench = try Workbench()
    let memory = SlowMemory(try bench.create("cluster_size=64k", size: "1M"))
    let image = try QCOW2Image<SlowStorage, Inflater>(
      storage: SlowStorage(memory: memory), writable: true, decompressor: Inflater())
    let shared = SharedImage(.qcow2(image), decompressor: Inflater())
    let group = DispatchGroup()
    for number in 0..<4 {
      group.enter()
      try LinuxSystem.Thread.start("writer") {
        let bytes = [UInt8](repeating: UInt8(number + 1), count: 512)
        for cluster in 0..<16 {
          try? shared.write(bytes.span, at: UInt64(cluster * 65536 + number * 4096))
        }
        group.leave()
      }
    }
    try #require(group.wait(timeout: .now() + 60) == .success)
    try shared.flush()
    try bench.store(memory.bytes.withLock { $0 }, "i")
    var twin = Twin(bytes: [UInt8](repeating: 0, count: 1 << 20))
    for cluster in 0..<16 {
      for number in 0..<4 {
        let start = cluster * 65536 + number * 4096
        twin.bytes.replaceSubrange(
          start..<start + 512, with: repeatElement(UInt8(number + 1), count: 512))
      }
    }
    try bench.judge("i", twin, "slow transfers")
  }
}

/// Bytes that several threads write to, each for a while.
final class SlowMemory: Sendable {
  let bytes: Mutex<[UInt8]>
  init(_ bytes: [UInt8]) { self.bytes = Mutex(bytes) }

  var byteCount: UInt64 { bytes.withLock { UInt64($0.count) } }

  func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) {
    let copy = bytes.withLock { $0 }
    for index in 0..<buffer.count {
      let place = Int(offset) + index
      buffer[index] = place < copy.count ? copy[place] : 0
    }
  }

  func write(_ data: Span<UInt8>, at offset: UInt64) {
    var copy: [UInt8] = []
    for index in 0..<data.count { copy.append(data[index]) }
    let new = copy
    bytes.withLock { bytes in
      let end = Int(offset) + new.count
      if bytes.count < end { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
      bytes.replaceSubrange(Int(offset)..<end, with: new)
    }
  }
}

/// A storage whose port takes its time.
struct SlowStorage: SharedStorage {
  struct Port: StoragePort {
    let memory: SlowMemory

    func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) throws(StorageError) {
      memory.read(into: &buffer, at: offset)
    }

    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
      usleep(1000)
      memory.write(bytes, at: offset)
    }

    func discard(at offset: UInt64, count: UInt64) throws(StorageError) {}

    func flush() throws(StorageError) {}
  }

  let memory: SlowMemory

  var byteCount: UInt64 { memory.byteCount }
  var port: Port { Port(memory: memory) }

  mutating func noteWritten(upTo end: UInt64) {}

  mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    memory.read(into: &buffer, at: offset)
  }

  mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    memory.write(bytes, at: offset)
  }

  mutating func flush() throws(StorageError) {}
}

/// What a thread does, on sectors of its own.
struct ParallelWorker: Sendable {
  let number: Int
  var twin: Twin
  var complaint: String?
  private var random: SeededGenerator
  private let clusterSize: Int

  /// In the first half of the disk the threads share clusters, in the second they do not.
  private static let stripe = 3
  private static let chunk = 256
  private static let half = SharedImageTests.sectors / 2

  init(_ number: Int, _ seed: UInt64, _ twin: Twin, _ clusterSize: Int) {
    self.number = number
    self.twin = twin
    self.clusterSize = clusterSize
    random = SeededGenerator(state: seed * 1000 + UInt64(number))
  }

  private mutating func range() -> Range<Int> {
    let workers = SharedImageTests.workers
    if Bool.random(using: &random) {
      let groups = Self.half / (Self.stripe * workers)
      let first =
        (Int.random(in: 0..<groups, using: &random) * workers + number) * Self.stripe
      return first..<first + Self.stripe
    }
    let groups = Self.half / (Self.chunk * workers)
    let chunk =
      Self.half + (Int.random(in: 0..<groups, using: &random) * workers + number) * Self.chunk
    let count = Int.random(in: 1...Self.chunk, using: &random)
    let first = chunk + Int.random(in: 0...Self.chunk - count, using: &random)
    return first..<first + count
  }

  mutating func work(on image: SharedImage<ImageFile, Inflater>) {
    do throws(BlockImageError) {
      for step in 0..<environmentNumber("BULKHEAD_DISK_STEPS", 100) where complaint == nil {
        try one(step * 8 + number, image)
      }
    } catch {
      complaint = "\(error)"
    }
  }

  private mutating func one(_ step: Int, _ image: SharedImage<ImageFile, Inflater>)
    throws(BlockImageError)
  {
    let range = range()
    let place = UInt64(range.lowerBound) * 512
    let count = UInt64(range.count) * 512
    let work: DiskWork
    switch Int.random(in: 0..<16, using: &random) {
    case 0: work = .flush
    case 1: work = .zero(sector: range.lowerBound, count: range.count)
    case 2..<4 where range.lowerBound >= Self.half:
      work = .discard(sector: range.lowerBound, count: range.count)
    case 4..<10: work = .write(sector: range.lowerBound, count: range.count)
    default:
      var seen = [UInt8](repeating: 0xEE, count: Int(count))
      var span = seen.mutableSpan
      try image.read(into: &span, at: place)
      let bytes = range.lowerBound * 512..<range.upperBound * 512
      if let wrong = firstDifference(seen, Array(twin.bytes[bytes]), except: []) {
        complaint = "thread \(number), step \(step): sector \(range.lowerBound + wrong)"
      }
      return
    }
    switch work {
    case .flush: try image.flush()
    case .zero: try image.zero(at: place, count: count)
    case .discard: try image.discard(at: place, count: count)
    case .write: try image.write(RandomWork.data(step, count: range.count).span, at: place)
    }
    twin.perform(work, step, clusterSize: clusterSize)
  }

  /// Copies this thread's sectors.
  func merge(into other: inout Twin) {
    for sector in 0..<SharedImageTests.sectors {
      let unit =
        sector < Self.half ? sector / Self.stripe : (sector - Self.half) / Self.chunk
      guard unit % SharedImageTests.workers == number else { continue }
      let range = sector * 512..<(sector + 1) * 512
      other.bytes.replaceSubrange(range, with: twin.bytes[range])
    }
  }
}

/// Where threads wait for each other.
final class Meeting: Sendable {
  let isOpen = Atomic(false)
  let most = Atomic(0)
  let holes = Mutex<[Range<UInt64>]>([])
  private let inside = Atomic(0)

  func enter() {
    guard isOpen.load(ordering: .sequentiallyConsistent) else { return }
    let now = inside.add(1, ordering: .sequentiallyConsistent).newValue
    most.max(now, ordering: .sequentiallyConsistent)
    while most.load(ordering: .sequentiallyConsistent) < 2 { usleep(100) }
    inside.subtract(1, ordering: .sequentiallyConsistent)
  }
}

/// A storage whose port lets nobody go before two are inside.
struct MeetingStorage: SharedStorage {
  struct Port: StoragePort {
    let memory: SlowMemory
    let meeting: Meeting

    func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) throws(StorageError) {
      meeting.enter()
      memory.read(into: &buffer, at: offset)
    }

    func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) { throw .readOnly }

    func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
      meeting.enter()
      meeting.holes.withLock { $0.append(offset..<offset + count) }
    }

    func flush() throws(StorageError) {}
  }

  let memory: SlowMemory
  let meeting: Meeting

  var byteCount: UInt64 { memory.byteCount }
  var port: Port { Port(memory: memory, meeting: meeting) }

  mutating func noteWritten(upTo end: UInt64) {}

  mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    memory.read(into: &buffer, at: offset)
  }

  mutating func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    memory.write(bytes, at: offset)
  }

  mutating func flush() throws(StorageError) {}
}
