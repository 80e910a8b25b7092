// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
import TestSupport
import Testing

/// Whatever its launcher and its core send it, a device goes on or ends with a reason.
@Suite("A device before a hostile core", .serialized, .timeLimit(.minutes(5)))
struct HostileCoreTests {
  @Test("survives malformed settings", arguments: Role.allCases)
  func settings(_ role: Role) throws {
    var dice = Dice(1)
    for mutation in dice.mutations(of: Victim.setup(role), 24) {
      let victim = try Victim(role, setup: mutation.bytes)
      // Good or not, it gets no further than its hello.
      let hello = try victim.next()

      // A flag among them asks for strict isolation, which may not be had: 3.
      try victim.judge("setup with \(mutation.what)", codes: hello == nil ? [1, 3] : [0, 1])
    }
  }

  @Test("survives settings at their limits")
  func limits() throws {
    let common = CommonSettings(machine: "", isStrict: false)
    var settings: [(Role, [UInt8])] = []
    for number in [0, 1, 0xFFFF_FFFF, 0x7FFF_FFFF_FFFF_FFFF, UInt64.max] as [UInt64] {
      let word = UInt16(truncatingIfNeeded: number)
      let port = SerialSettings.Port(backend: .file, start: number)
      settings.append((.serial, SerialSettings(common: common, ports: [port]).wireBytes))
      settings.append(
        (.vga, VGASettings(common: common, videoByteCount: UInt32(clamping: number)).wireBytes))
      settings.append(
        (
          .piix,
          PIIXSettings(
            common: common, memoryByteCount: number, cpus: word, bootOrder: "cdcdcdcd",
            hasBootMenu: true, drives: [1, 1, 1, 1], serialPorts: UInt8(truncatingIfNeeded: word),
            exitPort: UInt32(clamping: number), hasDebugConsole: true,
            unixSeconds: Int64(bitPattern: number)
          ).wireBytes
        ))
    }
    for (role, bytes) in settings {
      let victim = try Victim(
        role, setup: Victim.message(LaunchRequest.setup.rawValue, [], bytes))
      guard try victim.next() != nil else {
        try victim.judge("limits", codes: [1])
        continue
      }
      victim.send(Victim.hello)
      victim.send(Victim.grant, try victim.takeClaims())
      if try victim.next() != nil { #expect(try victim.isSane()) }
      if role == .serial {
        let write = LaneAccess(.write, width: 1, region: 0, offset: 0, value: 65)
        #expect(try victim.isAnswered(write))
        #expect(try victim.isSane())
      }
      try victim.judge("limits")
    }
  }

  @Test("survives malformed replies to its hello", arguments: Role.allCases)
  func hello(_ role: Role) throws {
    var dice = Dice(2)
    for mutation in dice.mutations(of: Victim.hello, 8) {
      let victim = try Victim(role)
      try victim.greet(mutation.bytes)
      _ = try victim.next()
      try victim.judge("hello with \(mutation.what)")
    }
  }

  @Test("survives malformed grants", arguments: Role.allCases)
  func grant(_ role: Role) throws {
    var dice = Dice(3)
    for mutation in dice.mutations(of: Victim.grant, 10) {
      let victim = try Victim(role)
      try victim.greet()
      victim.send(mutation.bytes, try victim.takeClaims())
      if try victim.next() != nil { #expect(try victim.isSane()) }
      try victim.judge("grant with \(mutation.what)")
    }
    let smallest = Grant(
      slots: 2, isRestart: false, stateByteCount: UInt32(StateLayoutInPage.bulkOffset))
    let victim = try Victim(role)
    try victim.greet()
    victim.send(
      Victim.message(Request.claim.rawValue, .reply, smallest.wireBytes),
      try victim.takeClaims())
    if try victim.next() != nil { #expect(try victim.isSane()) }
    try victim.judge("grant of the smallest state page")
  }

  @Test("maps nothing that is not sealed memory of the right size", arguments: Role.allCases)
  func grantedDescriptors(_ role: Role) throws {
    let files: [(String, Descriptor)] = [
      ("a short memory", try MemoryFile.make("short", byteCount: 4096)),
      ("an empty memory", try MemoryFile.make("empty", byteCount: 0)),
      ("an event", try EventFile.make()),
      ("/dev/null", try Descriptor.open("/dev/null", 2)),
      ("an unsealed file", try Descriptor.open("/dev/shm", 0o20200000 | 2)),
    ]
    try files[4].1.truncate(to: 2 << 20)
    /// Grants what `change` makes of the right descriptors; whether the device served then.
    func served(_ what: String, _ change: (inout [Descriptor]) -> Void) throws -> Bool {
      let victim = try Victim(role)
      try victim.greet()
      var given = try victim.takeClaims()
      change(&given)
      victim.send(Victim.grant, given)
      let isReady = try victim.next() != nil
      if isReady { #expect(try victim.isSane()) }
      try victim.judge("grant with \(what)", codes: isReady ? [0] : [1])
      return isReady
    }

    let victim = try Victim(role)
    try victim.greet()
    let count = try victim.takeClaims().count
    try victim.judge("no grant")
    let memories = count - victim.claims.lines.reduce(0) { $0 + ($1.isLevel ? 2 : 1) }
    for left in [0, 1, 2, memories, count - 1] where left < count {
      #expect(try !served("\(left) descriptors") { $0 = Array($0.prefix(left)) })
    }
    #expect(try served("five more") { $0 += files.map(\.1) })
    for place in 0..<memories {
      for (what, file) in files where !(place == 1 && what == "a short memory") {
        #expect(try !served("\(what) at \(place)") { $0[place] = file }, "\(what) at \(place)")
      }
    }
    if count > memories {
      _ = try served("a memory as a line") { $0[memories] = files[0].1 }
      _ = try served("/dev/null as a line") { $0[count - 1] = files[3].1 }
    }
  }

  @Test("survives malformed requests while it serves", arguments: Role.allCases)
  func requests(_ role: Role) throws {
    var dice = Dice(4)
    let keys = InputRequest(keys: [
      InputRequest.Key(name: "a", isDown: true), InputRequest.Key(name: "??", isDown: false),
    ])
    let good: [(Request, [UInt8])] = [
      (.reset, []), (.pause, []), (.resume, []), (.quit, []),
      (.screendump, ScreendumpRequest(byteCount: 4 << 20).wireBytes), (.input, keys.wireBytes),
    ]
    var messages: [Mutator.Mutation] = []
    for (request, payload) in good {
      let message = Victim.message(request.rawValue, sequence: 5, payload)
      for mutation in dice.mutations(of: message, 4) {
        messages.append(.init(what: "\(request) with \(mutation.what)", bytes: mutation.bytes))
      }
    }
    for request in [0, 1, 3, 8, 14, 100, UInt32.max] as [UInt32] {
      messages.append(.init(what: "request \(request)", bytes: Victim.message(request, [], [])))
      messages.append(
        .init(what: "reply \(request)", bytes: Victim.message(request, .reply, [1, 0, 0, 0])))
    }
    messages.append(.init(what: "an empty packet", bytes: []))
    for count in [Header.longestMessage, 100_000] {
      messages.append(
        .init(
          what: "a long packet",
          bytes: Victim.message(Request.input.rawValue, [], [UInt8](repeating: 1, count: count))))
    }
    var victim = try Victim(role)
    try victim.serve()
    for (index, message) in messages.enumerated() {
      let files = index % 3 == 0 ? [victim.clock, victim.state] : []
      victim.send(message.bytes, files)
      HostClock.sleep(1_000_000)
      if try victim.isSane() { continue }
      try victim.judge(message.what)
      victim = try Victim(role)
      try victim.serve()
    }
    try victim.judge("the last of the requests")
  }

  @Test("keeps nothing of what it does not need", arguments: Role.allCases)
  func growth(_ role: Role) throws {
    let victim = try Victim(role)
    try victim.serve()
    func flood(_ rounds: Int) throws {
      for round in 0..<rounds {
        let request: Request = round % 2 == 0 ? .reset : .pause
        victim.send(
          Victim.message(request.rawValue, sequence: 1, []), [victim.clock, victim.state])
        // One after the other: a device that waits for its core takes 64 requests, no more.
        guard try victim.isObeyed(), try victim.isSane() else {
          return try victim.judge("round \(round)", codes: [])
        }
      }
    }

    try flood(300)
    let before = try victim.residentPages()
    try flood(1500)

    #expect(try victim.residentPages() - before < 512)
    try victim.judge("a flood of resets", codes: [0])
  }

  @Test("ends in order when the core goes at any stage", arguments: Role.allCases)
  func closed(_ role: Role) throws {
    for stage in 0..<6 {
      let victim = try Victim(role)
      if stage > 0 { _ = try victim.next() }
      if stage > 1 { victim.send(Victim.hello) }
      if stage > 2 { victim.send(Victim.grant, try victim.takeClaims()) }
      if stage > 3 { _ = try victim.next() }
      if stage > 4 { #expect(try victim.isSane()) }
      try victim.judge("gone at stage \(stage)")
    }
  }
}
