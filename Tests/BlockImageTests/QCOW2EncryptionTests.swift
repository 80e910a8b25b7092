// SPDX-License-Identifier: Apache-2.0

import Foundation
import ImageFiles
import LinuxSystem
import Testing

@testable import BlockImage
@testable import DiskEncryption
@testable import image_writer

extension Workbench {
  static let secret = ["--object", "secret,id=s,file=key"]
  static let encrypted = "driver=qcow2,encrypt.key-secret=s,file.filename=i"

  /// Makes an encrypted image `i` whose key is in the file `key`.
  func createEncrypted(_ options: String = "", size: Int, password: String = "bulkhead") throws {
    try store(Array(password.utf8), "key")
    let all =
      "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
      + (options.isEmpty ? "" : ",\(options)")
    // On a busy host qemu-img may fail to time itself.
    for _ in 0..<10 {
      let made = try run(
        "qemu-img",
        ["create", "-q"] + Self.secret + ["-f", "qcow2", "-o", all, "i", "\(size)"])
      if made.output.contains("accurate CPU usage") { continue }
      try #require(made.code == 0, "\(made.output)")
      return
    }
    Issue.record("qemu-img could not time itself in ten tries")
  }

  func succeed(_ tool: String, _ arguments: [String]) throws {
    let done = try run(tool, arguments)
    try #require(
      done.code == 0 && !done.output.contains("failed"), "\(tool) \(arguments): \(done.output)")
  }

  /// Checks an encrypted image with QEMU's tools, and compares it with the raw twin.
  func judgeEncrypted(_ twin: Twin, _ note: String) throws {
    try store(twin.bytes, "twin")
    let check = try run(
      "qemu-img", ["check"] + Self.secret + ["--image-opts", Self.encrypted])
    #expect(check.code == 0, "\(note): \(check.output)")
    let compare = try run(
      "qemu-img",
      ["compare"] + Self.secret + ["--image-opts", "driver=raw,file.filename=twin", Self.encrypted])
    #expect(compare.code == 0, "\(note): \(compare.output)")
  }
}

@Suite("Encrypted qcow2 images")
struct QCOW2EncryptionTests {
  static let geometries = [
    "cluster_size=65536", "cluster_size=512", "cluster_size=4096,compat=0.10",
    "cluster_size=16k,extended_l2=on", "cluster_size=65536,encrypt.cipher-alg=aes-128",
    "cluster_size=4096,encrypt.ivgen-alg=plain,encrypt.hash-alg=sha512",
    "cluster_size=4096,encrypt.hash-alg=sha1", "cluster_size=4096,data_file=d",
    "cluster_size=65536,preallocation=metadata",
  ]

  @Test(
    "what we and QEMU write in turn, both read",
    arguments: geometries, [QCOW2Options.TableWrites.through, .back])
  func twins(geometry: String, tables: QCOW2Options.TableWrites) throws {
    let note = "\(geometry) \(tables)"
    let bench = try Workbench()
    let sectors = 3 << 11  // 3 MiB
    try bench.createEncrypted(geometry, size: sectors * 512)
    var twin = Twin(bytes: [UInt8](repeating: 0, count: sectors * 512))
    if geometry.contains("preallocation") {
      // What was reserved and never written reads as noise, with QEMU as with us.
      var image = try openFile(bench.path("i"), key: "key")
      try image.write(twin.bytes.span, at: 0)
      try image.close()
    }
    var options = QCOW2Options()
    options.tables = tables
    // Small, so that slices are replaced often.
    options.l2CacheByteCount = 8192
    var number = 0
    for round in 0..<2 {
      var image = try openFile(bench.path("i"), options: options, key: "key")
      var work = RandomWork(seed: UInt64(round) + 0xE0C, sectorCount: sectors)
      let clusterSize = Int(image.header.clusterSize)
      for _ in 0..<40 {
        let next = work.next()
        try image.perform(next, number)
        twin.perform(next, number, clusterSize: clusterSize)
        number += 1
      }
      // Not whole sectors.
      let odd = RandomWork.data(0x0DD, count: 2)[..<777]
      try image.write(Array(odd).span, at: 70_001)
      twin.bytes.replaceSubrange(70_001..<70_778, with: odd)
      #expect(try image.bytes(at: 69_999, count: 2001) == Array(twin.bytes[69_999..<72_000]))
      try image.close()
      try bench.judgeEncrypted(twin, "\(note) round \(round)")
      try bench.succeed(
        "qemu-io",
        Workbench.secret + ["--image-opts", Workbench.encrypted]
          + ["-c", "write -P \(round + 1) \(round * 300)k 200k", "-c", "discard 1M 64k"])
      twin.bytes.replaceSubrange(
        round * 300 * 1024..<(round * 300 + 200) * 1024,
        with: repeatElement(UInt8(round + 1), count: 200 * 1024))
      if !geometry.contains("data_file") {
        try bench.succeed(
          "qemu-img",
          ["snapshot"] + Workbench.secret + [
            "-c", "s\(round)", "--image-opts", Workbench.encrypted,
          ])
      }
      var again = try openFile(bench.path("i"), writable: false, key: "key")
      // QEMU's discard may leave what was there.
      let seen = try again.contents()
      for place in (1 << 20)..<(1 << 20) + 65536 { twin.bytes[place] = seen[place] }
      #expect(firstDifference(seen, twin.bytes, except: []) == nil, "\(note) round \(round)")
    }
  }

  @Test("no sector of an encrypted image is in its file as it is on the disk")
  func isHidden() throws {
    let bench = try Workbench()
    try bench.createEncrypted(size: 1 << 20)
    var image = try openFile(bench.path("i"), key: "key")
    let mark = [UInt8](repeating: 0xA7, count: 4096)

    for place in stride(from: 0, to: 1 << 20, by: 50_000) {
      try image.write(mark.span, at: UInt64(place))
    }
    try image.close()

    let file = Data(try bench.load("i"))
    #expect(file.range(of: Data(mark[..<16])) == nil)
  }

  @Test("a wrong key, an empty one and none are errors")
  func wrongKey() throws {
    let bench = try Workbench()
    try bench.createEncrypted(size: 1 << 20)
    try bench.store(Array("bulkheae".utf8), "wrong")
    try bench.store([], "empty")
    try bench.store([UInt8](repeating: 7, count: 4097), "long")

    #expect(throws: BlockImageError.wrongKey) { _ = try openFile(bench.path("i"), key: "wrong") }
    #expect(throws: ImageKey.Failure.self) { _ = try openFile(bench.path("i"), key: "empty") }
    #expect(throws: ImageKey.Failure.self) { _ = try openFile(bench.path("i"), key: "long") }
    var locked = try openFile(bench.path("i"))
    #expect(throws: BlockImageError.keyMissing) {
      try locked.write([UInt8](repeating: 1, count: 512).span, at: 0)
    }
    try locked.close()
    let check = try bench.run(
      "qemu-img", ["check"] + Workbench.secret + ["--image-opts", Workbench.encrypted])
    #expect(check.code == 0 || check.code == 3, "\(check.output)")
  }

  @Test("any of several passwords opens the image")
  func secondSlot() throws {
    let bench = try Workbench()
    try bench.createEncrypted(size: 1 << 20)
    try bench.store(Array("another".utf8), "second")
    try bench.succeed(
      "qemu-img",
      ["amend"] + Workbench.secret
        + [
          "--object", "secret,id=n,file=second", "-o",
          "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10", "--image-opts",
          Workbench.encrypted,
        ])
    for key in ["key", "second"] {
      var image = try openFile(bench.path("i"), key: key)
      #expect(try image.bytes(at: 0, count: 512) == [UInt8](repeating: 0, count: 512))
      try image.close()
    }
  }

  /// A damage to the LUKS header and the words its error has to have.
  struct LUKSDamage: Sendable {
    var place: Int
    var bytes: [UInt8]
    var expected: String
  }

  static let damages = [
    LUKSDamage(place: 0, bytes: [0], expected: "not a LUKS image"),
    LUKSDamage(place: 7, bytes: [2], expected: "LUKS version 2"),
    LUKSDamage(place: 8, bytes: Array("serpent\0".utf8), expected: "serpent-xts-plain64"),
    LUKSDamage(place: 8, bytes: [1], expected: "LUKS cipher-name"),
    LUKSDamage(
      place: 40, bytes: [UInt8](repeating: 0x61, count: 32), expected: "LUKS cipher-mode"),
    LUKSDamage(place: 40, bytes: Array("cbc-plain64\0".utf8), expected: "aes-cbc-plain64"),
    LUKSDamage(place: 72, bytes: Array("md5\0".utf8), expected: "the hash md5"),
    LUKSDamage(place: 108, bytes: [0, 0, 0, 0], expected: "LUKS key-bytes"),
    LUKSDamage(place: 108, bytes: [0xFF, 0xFF, 0xFF, 0xFF], expected: "LUKS key-bytes"),
    LUKSDamage(place: 108, bytes: [0, 0, 0, 48], expected: "LUKS key-bytes"),
    LUKSDamage(place: 164, bytes: [0, 0, 0, 0], expected: "LUKS mk-digest-iter"),
    LUKSDamage(place: 164, bytes: [0xFF, 0xFF, 0xFF, 0xFF], expected: "LUKS mk-digest-iter"),
    LUKSDamage(place: 208, bytes: [1], expected: "key slot 0 active"),
    LUKSDamage(place: 212, bytes: [0, 0, 0, 0], expected: "key slot 0 iterations"),
    LUKSDamage(place: 212, bytes: [0x10, 0, 0, 0], expected: "key slot 0 iterations"),
    LUKSDamage(place: 248, bytes: [0, 0, 0, 0], expected: "key slot 0 key-material-offset"),
    LUKSDamage(
      place: 248, bytes: [0xFF, 0xFF, 0xFF, 0xFF], expected: "key slot 0 key-material-offset"),
    LUKSDamage(place: 252, bytes: [0, 0, 0, 1], expected: "key slot 0 stripes"),
    LUKSDamage(place: 252, bytes: [0xFF, 0xFF, 0xFF, 0xFF], expected: "key slot 0 stripes"),
    // Two slots in use whose material is the same.
    LUKSDamage(
      place: 256,
      bytes: [0, 0xAC, 0x71, 0xF3, 0, 0, 4, 0] + [UInt8](repeating: 1, count: 32)
        + [0, 0, 0, 8, 0, 0, 0x0F, 0xA0], expected: "overlaps"),
    // Each slot is within its bound, and the digest's iterations for each are too many.
    LUKSDamage(place: 164, bytes: [1, 0, 0, 0], expected: ""),
    LUKSDamage(
      place: 164,
      bytes: [0, 0xF0, 0, 0] + [UInt8](repeating: 0x30, count: 40)
        + [0, 0xAC, 0x71, 0xF3, 1, 0, 0, 0] + [UInt8](repeating: 1, count: 32)
        + [0, 0, 0, 8, 0, 0, 0x0F, 0xA0]
        + [0, 0xAC, 0x71, 0xF3, 1, 0, 0, 0] + [UInt8](repeating: 1, count: 32)
        + [0, 0, 2, 0, 0, 0, 0x0F, 0xA0], expected: "LUKS iterations"),
  ]

  @Test("each damage to the LUKS header is refused with an error that names the field")
  func malformed() throws {
    let bench = try Workbench()
    try bench.createEncrypted(size: 1 << 20)
    let good = try bench.load("i")
    for damage in Self.damages {
      var storage = MemoryStorage(good)
      let header = try QCOW2Header.read(from: &storage)
      let start = Int(header.encryptionOffset)
      storage.bytes.replaceSubrange(
        start + damage.place..<start + damage.place + damage.bytes.count, with: damage.bytes)
      var words = ""
      do throws(BlockImageError) { _ = try header.encryptionHeader(on: &storage) } catch {
        words = error.description
      }
      #expect(
        damage.expected.isEmpty ? words.isEmpty : words.contains(damage.expected),
        "\(damage.place): \(words)")
    }
  }

  @Test("the place of the LUKS header is checked")
  func malformedPlace() throws {
    let bench = try Workbench()
    try bench.createEncrypted("cluster_size=4096", size: 1 << 20)
    let good = try bench.load("i")
    let mark: [UInt8] = [0x05, 0x37, 0xBE, 0x77, 0, 0, 0, 16]
    let place = try #require(Data(good).range(of: Data(mark))).upperBound
    let cases: [(Int, UInt64, String)] = [
      (0, 0, "encryption header offset"), (0, 512, "encryption header offset"),
      (0, 1 << 40, "encryption header offset"), (0, .max & ~4095, "encryption header offset"),
      (8, 0, "encryption header length"), (8, .max, "encryption header length"),
      (8, 7 << 20, "encryption header offset"),
    ]
    for (offset, value, expected) in cases {
      var bytes = good
      bytes.storeBigEndian(value, at: place + offset)
      let words = QCOW2MalformedTests.use(bytes, writes: false)
      #expect(words.contains(expected), "\(offset) \(value): \(words)")
    }
    // Over the L1 table: a writer refuses it.
    var bytes = good
    bytes.storeBigEndian(bytes.bigEndian64(at: 40), at: place)
    #expect(QCOW2MalformedTests.use(bytes, writes: true).contains("another table lies over"))
  }

  @Test("random bytes in the LUKS header and its material never trap")
  func noise() throws {
    let bench = try Workbench()
    try bench.createEncrypted(size: 1 << 20)
    let good = try bench.load("i")
    var storage = MemoryStorage(good)
    let header = try QCOW2Header.read(from: &storage)
    let start = Int(header.encryptionOffset)
    var random = SeededGenerator(state: 11)
    var refused = 0
    for _ in 0..<2000 {
      storage.bytes.replaceSubrange(start..<start + 592, with: good[start..<start + 592])
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        storage.bytes[start + Int.random(in: 0..<592, using: &random)] =
          UInt8.random(in: 0...255, using: &random)
      }
      do throws(BlockImageError) { _ = try header.encryptionHeader(on: &storage) } catch {
        refused += 1
      }
    }
    #expect(refused > 500)
    // Material that is noise opens nothing.
    storage.bytes = good
    for place in start + 4096..<start + 8192 { storage.bytes[place] ^= 0x55 }
    let key = try ImageKey(Files.open(bench.path("key"), [.readOnly]))
    #expect(throws: BlockImageError.wrongKey) { _ = try key.cipher(of: header, on: &storage) }
  }

  @Test("AES-XTS agrees with IEEE 1619, and refuses a key of equal halves")
  func vectors() throws {
    // IEEE 1619-2007, annex B, vector 4, has 512 bytes and the number 0.
    var key = [UInt8]()
    for byte in [
      0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35,
      0x26, 0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83,
      0x27, 0x95,
    ] { key.append(UInt8(byte)) }
    let made = XTSCipher(key: key.span)
    let cipher = try #require(made)
    let plain = (0..<512).map { UInt8(truncatingIfNeeded: $0) }
    var bytes = plain
    var span = bytes.mutableSpan
    let isEncrypted = cipher.encrypt(&span, sector: 0)
    #expect(isEncrypted)
    #expect(
      bytes[..<16] == [
        0x27, 0xA7, 0x47, 0x9B, 0xEF, 0xA1, 0xD4, 0x76, 0x48, 0x9F, 0x30, 0x8C, 0xD4, 0xCF, 0xA6,
        0xE2,
      ])
    span = bytes.mutableSpan
    let isDecrypted = cipher.decrypt(&span, sector: 0)
    #expect(isDecrypted)
    #expect(bytes == plain)
    for count in [64, 48] {
      let refused = XTSCipher(key: [UInt8](repeating: 3, count: count).span)
      #expect(refused == nil)
    }
  }
}
