// SPDX-License-Identifier: Apache-2.0

import BlockImage
import DiskEncryption
import ImageFiles
import LinuxSystem
import Synchronization

/// The bytes of an image, which may pretend to be more than they are.
struct FuzzBytes: Sendable {
  var bytes: [UInt8]
  var pretended: UInt64 = 0

  var byteCount: UInt64 { max(UInt64(bytes.count), pretended) }

  func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) {
    let available =
      offset < UInt64(bytes.count) ? min(buffer.count, bytes.count - Int(offset)) : 0
    for index in 0..<available { buffer[index] = bytes[Int(offset) + index] }
    if available < buffer.count {
      var rest = buffer._mutatingExtracting(available..<buffer.count)
      rest.update(repeating: 0)
    }
  }

  mutating func write(_ data: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    guard offset < 4 << 20, data.count < 8 << 20 else { throw .noSpace }
    let end = Int(offset) + data.count
    if end > bytes.count { bytes += [UInt8](repeating: 0, count: end - bytes.count) }
    for index in 0..<data.count { bytes[Int(offset) + index] = data[index] }
  }

  mutating func discard(at offset: UInt64, count: UInt64) {
    guard offset < UInt64(bytes.count) else { return }
    for index in Int(offset)..<Int(min(UInt64(bytes.count), offset &+ count)) { bytes[index] = 0 }
  }
}

/// An image in memory.
struct FuzzStorage: SharedStorage {
  /// What reads and writes it.
  final class Port: StoragePort {
    let memory: Mutex<FuzzBytes>
    init(_ bytes: FuzzBytes) { memory = Mutex(bytes) }

    func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64) throws(StorageError) {
      memory.withLock { $0 }.read(into: &buffer, at: offset)
    }

    func write(_ data: Span<UInt8>, at offset: UInt64) throws(StorageError) {
      var copy: [UInt8] = []
      copy.reserveCapacity(data.count)
      for index in 0..<data.count { copy.append(data[index]) }
      let bytes = copy
      try memory.withLock { (memory) throws(StorageError) in
        try memory.write(bytes.span, at: offset)
      }
    }

    func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
      memory.withLock { $0.discard(at: offset, count: count) }
    }

    func flush() throws(StorageError) {}
  }

  let port: Port

  init(_ bytes: FuzzBytes) { port = Port(bytes) }

  var byteCount: UInt64 { port.memory.withLock { $0.byteCount } }

  mutating func noteWritten(upTo end: UInt64) {}

  mutating func read(into buffer: inout MutableSpan<UInt8>, at offset: UInt64)
    throws(StorageError)
  {
    try port.read(into: &buffer, at: offset)
  }

  mutating func write(_ data: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    try port.write(data, at: offset)
  }

  mutating func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    try port.discard(at: offset, count: count)
  }

  mutating func flush() throws(StorageError) {}

  mutating func zero(at offset: UInt64, count: UInt64) throws(StorageError) {
    guard count < 2 << 20 else { throw .noSpace }
    try write([UInt8](repeating: 0, count: Int(count)).span, at: offset)
  }
}

/// Opens and uses images that are damaged at places that matter.
struct Fuzzer {
  private var random: SeededGenerator
  private var buffer = [UInt8](repeating: 0x5A, count: 64 << 10)
  private var opened = 0
  /// What encrypts in the place of the key, which takes too long to open.
  private static let cipher: XTSCipher? = {
    let key = (0..<32).map { UInt8($0) }
    return XTSCipher(key: key.span)
  }()

  private init(seed: UInt64) { random = SeededGenerator(state: seed) }

  /// Runs `fuzz COUNT SEED IMAGE...`.
  static func run(_ words: [String]) throws {
    let count = Int(words[2]) ?? 0
    let seed = UInt64(words[3]) ?? 0
    var seeds: [[UInt8]] = []
    for path in words[4...] {
      let file = try Files.open(path, [.readOnly])
      seeds.append(try file.read(Int(try file.end()), at: 0))
    }
    let start = HostClock.monotonic()
    var slowest: UInt64 = 0
    var opened = 0
    for number in 0..<count {
      // Each execution has a seed of its own, so that one can be repeated alone.
      var fuzzer = Fuzzer(seed: seed &+ UInt64(number))
      var time = fuzzer.timed(seeds)
      if time >= 1_000_000_000 {
        // The machine may have been busy with something else.
        fuzzer = Fuzzer(seed: seed &+ UInt64(number))
        time = fuzzer.timed(seeds)
      }
      opened += fuzzer.opened
      slowest = max(slowest, time)
      guard time < 1_000_000_000 else {
        Main.fail("the execution with seed \(seed &+ UInt64(number)) took \(time) ns")
      }
    }
    let seconds = Double(HostClock.monotonic() - start) / 1e9
    print(
      "\(count) executions, \(opened) opened, \(Int(Double(count) / seconds)) a second, slowest "
        + "\(slowest / 1000) us")
  }

  private mutating func number(_ range: Range<Int>) -> Int { Int.random(in: range, using: &random) }

  private mutating func timed(_ seeds: [[UInt8]]) -> UInt64 {
    let from = HostClock.monotonic()
    execute(seeds)
    return HostClock.monotonic() - from
  }

  private mutating func execute(_ seeds: [[UInt8]]) {
    var damaged = FuzzBytes(bytes: seeds[number(0..<seeds.count)])
    let damages = number(1..<5)
    for _ in 0..<damages { damage(&damaged) }
    var options = QCOW2Options()
    options.tables = Bool.random(using: &random) ? .back : .through
    options.hasBarriers = Bool.random(using: &random)
    // Small, so that slices are replaced often.
    options.l2CacheByteCount = 1 << number(12..<16)
    options.refcountCacheByteCount = 1 << number(12..<16)
    let isWritable = number(0..<4) != 0
    if !isWritable, number(0..<3) == 0 { options.snapshot = .id("1") }
    let below = FuzzStorage(FuzzBytes(bytes: [UInt8](repeating: 7, count: 20 << 10)))
    let backing = BackingImage<FuzzStorage, Inflater>(
      .raw(RawImage(storage: below, writable: false)))
    do throws(BlockImageError) {
      var image = try QCOW2Image<FuzzStorage, Inflater>(
        storage: FuzzStorage(damaged), writable: isWritable, backing: backing,
        dataFile: FuzzStorage(FuzzBytes(bytes: [])), decompressor: Inflater(), cipher: Self.cipher,
        options: options)
      opened = 1
      if image.header.isEncrypted {
        var copy = FuzzStorage(damaged)
        _ = try image.header.encryptionHeader(on: &copy)
      }
      if number(0..<8) == 0 { _ = try? image.snapshots() }
      let size = image.virtualSize
      let requests = (0..<number(1..<8)).map { _ in request(size) }
      if Bool.random(using: &random) {
        for request in requests { try? perform(request, &image) }
        try? image.close()
      } else {
        // As a drive uses it.
        let shared = SharedImage(.qcow2(image), decompressor: Inflater())
        for request in requests { try? perform(request, shared) }
        try? shared.flush()
      }
    } catch {
      // The text is made as for a user.
      guard !error.description.isEmpty else { Main.fail("an error without a description") }
    }
  }

  private struct Request {
    enum Kind { case read, write, zero, zeroInPlace, discard, flush }
    var kind: Kind
    var offset: UInt64
    var count: Int
  }

  private mutating func request(_ size: UInt64) -> Request {
    var offset = UInt64(number(0..<Int(clamping: max(1, min(size, 1 << 20))))) & ~511
    if number(0..<8) == 0 { offset = (size &- UInt64(number(0..<4096))) & ~511 }
    let count = [512, 1024, 4096, 4608, 40 << 10, 64 << 10][number(0..<6)]
    let kind: Request.Kind
    switch number(0..<10) {
    case 0..<4: kind = .read
    case 4..<8: kind = .write
    case 8: kind = Bool.random(using: &random) ? count == 4096 ? .zeroInPlace : .zero : .discard
    default: kind = .flush
    }
    return Request(kind: kind, offset: offset, count: count)
  }

  private mutating func perform(
    _ request: Request, _ image: inout QCOW2Image<FuzzStorage, Inflater>
  ) throws(BlockImageError) {
    let count = UInt64(request.count)
    switch request.kind {
    case .read:
      var span = buffer.mutableSpan
      var part = span._mutatingExtracting(0..<request.count)
      try image.read(into: &part, at: request.offset)
    case .write: try image.write(buffer.span.extracting(0..<request.count), at: request.offset)
    case .zero: try image.zero(at: request.offset, count: count)
    case .zeroInPlace: try image.zero(at: request.offset, count: count, keepsSpace: true)
    case .discard: try image.discard(at: request.offset, count: count)
    case .flush: try image.flush()
    }
  }

  private mutating func perform(
    _ request: Request, _ image: SharedImage<FuzzStorage, Inflater>
  ) throws(BlockImageError) {
    let count = UInt64(request.count)
    switch request.kind {
    case .read:
      var span = buffer.mutableSpan
      var part = span._mutatingExtracting(0..<request.count)
      try image.read(into: &part, at: request.offset)
    case .write: try image.write(buffer.span.extracting(0..<request.count), at: request.offset)
    case .zero, .zeroInPlace: try image.zero(at: request.offset, count: count)
    case .discard: try image.discard(at: request.offset, count: count)
    case .flush: try image.flush()
    }
  }

  // MARK: Damage

  /// The fields of the header: offset and width.
  private static let fields = [
    (0, 4), (4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4),
    (60, 4), (64, 8), (72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 1), (112, 4), (116, 4),
  ]

  private mutating func damage(_ storage: inout FuzzBytes) {
    guard storage.bytes.count > 200 else { return }
    switch number(0..<16) {
    case 0..<5:
      let (offset, width) = Self.fields[number(0..<Self.fields.count)]
      put(value(storage), width, at: offset, &storage)
    case 5..<12: damageTable(&storage)
    case 15: damageLUKS(&storage)
    case 12: storage.bytes.removeLast(number(0..<storage.bytes.count))
    case 13:
      // Header bombs: tables that fit a sparse file.
      if number(0..<64) == 0 { storage.pretended = 1 << UInt64(number(20..<60)) }
    default:
      for _ in 0..<number(1..<8) {
        storage.bytes[number(0..<storage.bytes.count)] = UInt8(number(0..<256))
      }
    }
  }

  /// Changes a field of the LUKS header, if there is one.
  private mutating func damageLUKS(_ storage: inout FuzzBytes) {
    let magic: [UInt8] = LUKSHeader.magic
    var start = 512
    while start < min(storage.bytes.count - 600, 64 << 10),
      storage.bytes[start] != magic[0] || storage.bytes[start + 1] != magic[1]
    {
      start += 512
    }
    guard start < min(storage.bytes.count - 600, 64 << 10) else { return }
    let fields = [6, 8, 40, 72, 104, 108, 164, 208, 212, 248, 252, 256, 260, 296, 300]
    put(value(storage), [1, 2, 4][number(0..<3)], at: start + fields[number(0..<15)], &storage)
  }

  /// Changes an entry of the L1 or an L2 table, the refcount table, a block or the snapshots.
  private mutating func damageTable(_ storage: inout FuzzBytes) {
    let l1 = read(8, at: 40, storage)
    let table: UInt64
    switch number(0..<6) {
    case 0: table = l1
    case 1, 2: table = read(8, at: Int(clamping: l1), storage) & 0x00FF_FFFF_FFFF_FE00
    case 3: table = read(8, at: 48, storage)
    case 4: table = read(8, at: Int(clamping: read(8, at: 48, storage)), storage)
    default:
      table = read(8, at: 64, storage)
      let fields = [0, 8, 12, 14, 32, 36, 40, 48]
      put(
        value(storage), [2, 4, 8][number(0..<3)],
        at: Int(clamping: table) &+ fields[number(0..<fields.count)], &storage)
      return
    }
    let width = number(0..<4) == 0 ? 2 : 8
    let entry = number(0..<4) == 0 ? number(0..<64) : number(0..<6)
    put(value(storage), width, at: Int(clamping: table) &+ entry * width, &storage)
  }

  /// A value that is likely to be near a limit or to point somewhere.
  private mutating func value(_ storage: FuzzBytes) -> UInt64 {
    let place = UInt64(number(0..<storage.bytes.count / 512 + 2)) * 512
    switch number(0..<10) {
    case 0: return 0
    case 1: return UInt64.max
    case 2: return 1 << UInt64(number(0..<64))
    case 3: return (1 << UInt64(number(0..<64))) &- 1
    case 4: return UInt64(number(0..<64))
    case 5: return place
    case 6: return 1 << 63 | place
    case 7: return 1 << 62 | UInt64(number(0..<64)) << UInt64(number(40..<62)) | place
    case 8: return 1 << 63 | place | 1
    default: return random.next()
    }
  }

  private func read(_ width: Int, at offset: Int, _ storage: FuzzBytes) -> UInt64 {
    guard offset >= 0, offset <= storage.bytes.count - width else { return 0 }
    return (0..<width).reduce(0) { $0 << 8 | UInt64(storage.bytes[offset + $1]) }
  }

  private func put(_ value: UInt64, _ width: Int, at offset: Int, _ storage: inout FuzzBytes) {
    guard offset >= 0, offset <= storage.bytes.count - width else { return }
    for byte in 0..<width {
      storage.bytes[offset + byte] = UInt8(
        truncatingIfNeeded: value >> UInt64(8 * (width - 1 - byte)))
    }
  }
}
