// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import PCI
internal import Synchronization

/// What the core itself keeps of the machine: clock, buses, open DMA windows.
struct SavedCore: WireCodable {
  /// The header of a PCI function.
  struct Function: WireCodable {
    var devfn: UInt8
    var space: StateRecord

    init(devfn: UInt8, space: StateRecord) {
      self.devfn = devfn
      self.space = space
    }

    func encode(to writer: inout WireWriter) {
      writer.put(devfn)
      space.encode(to: &writer)
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
      devfn = try reader.get("function")
      space = try StateRecord(from: &reader)
    }
  }

  /// Where a movable port region is.
  struct Region: WireCodable {
    var role: String
    var move: MoveRegion

    init(role: String, move: MoveRegion) {
      self.role = role
      self.move = move
    }

    func encode(to writer: inout WireWriter) {
      writer.put(role)
      move.encode(to: &writer)
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
      role = try reader.getString("role", most: 31)
      move = try MoveRegion(from: &reader)
    }
  }

  /// What a device may reach, and what the guest has programmed for it.
  struct Window: WireCodable {
    var role: String
    var number: UInt16
    /// Whether it is open; else only the registers count.
    var isOpen: Bool
    var pieces: [Piece]
    var registers: [UInt8]

    init(role: String, number: UInt16, isOpen: Bool, pieces: [Piece], registers: [UInt8]) {
      self.role = role
      self.number = number
      self.isOpen = isOpen
      self.pieces = pieces
      self.registers = registers
    }

    func encode(to writer: inout WireWriter) {
      writer.put(role)
      writer.put(number)
      writer.put(isOpen)
      writer.put(pieces)
      writer.put(registers)
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
      role = try reader.getString("role", most: 31)
      number = try reader.get("window")
      isOpen = try reader.getBool("open flag")
      pieces = try reader.getArray("pieces", most: 8192)
      registers = try reader.getBytes("registers", most: 8)
      guard registers.count == 8 else { throw ProtocolError("a DMA descriptor's registers") }
    }
  }

  /// What a device shows in its memory region.
  struct Mapping: WireCodable {
    var role: String
    var mapping: WindowMapping

    init(role: String, mapping: WindowMapping) {
      self.role = role
      self.mapping = mapping
    }

    func encode(to writer: inout WireWriter) {
      writer.put(role)
      mapping.encode(to: &writer)
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
      role = try reader.getString("role", most: 31)
      mapping = try WindowMapping(from: &reader)
    }
  }

  struct Piece: WireCodable {
    var piece: DMAWindow.Piece

    init(_ piece: DMAWindow.Piece) { self.piece = piece }

    func encode(to writer: inout WireWriter) {
      writer.put(piece.address)
      writer.put(piece.byteCount)
      writer.put(piece.direction.rawValue)
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
      let address: UInt64 = try reader.get("address")
      let byteCount: UInt64 = try reader.get("byte count")
      piece = DMAWindow.Piece(
        address: address, byteCount: byteCount, direction: try reader.getCase("direction"))
    }
  }

  /// The virtual clock in nanoseconds.
  var clock: UInt64
  var pirq: [UInt8]
  var mechanism: StateRecord
  var bridge: StateRecord
  var functions: [Function]
  var regions: [Region]
  var windows: [Window]
  var mappings: [Mapping]
  /// Whether the guest has suspended the machine to RAM.
  var isSuspended: Bool

  init(_ machine: Machine) {
    isSuspended = machine.progress.withLock { $0.isSuspended }
    mappings = machine.board.withLock { board in
      machine.links.compactMap { link in
        board.windows[link.index].map { Mapping(role: link.role, mapping: $0) }
      }
    }
    clock = machine.clock.now().nanoseconds
    pirq = machine.pirq.withLock { $0 }
    (mechanism, bridge, functions, regions) = machine.board.withLock { board in
      (
        StateRecord(of: board.mechanism), StateRecord(of: board.bridge),
        board.functions.map { Function(devfn: $0.devfn, space: StateRecord(of: $0.space)) },
        board.ports.filter { $0.claim.isMovable }.map {
          Region(
            role: $0.target.link.role,
            move: MoveRegion(
              region: $0.claim.region, isEnabled: $0.base != nil, base: $0.base ?? 0))
        }
      )
    }
    windows = machine.links.flatMap { link in
      link.state.withLock { state in
        Set(state.windows.keys).union(state.descriptors.keys).sorted().map { number in
          Window(
            role: link.role, number: number, isOpen: state.windows[number] != nil,
            pieces: state.windows[number]?.pieces.map { Piece($0) } ?? [],
            registers: state.descriptors[number] ?? [UInt8](repeating: 0, count: 8))
        }
      }
    }
  }

  func encode(to writer: inout WireWriter) {
    writer.put(clock)
    writer.put(pirq)
    mechanism.encode(to: &writer)
    bridge.encode(to: &writer)
    writer.put(functions)
    writer.put(regions)
    writer.put(windows)
    writer.put(mappings)
    writer.put(isSuspended)
  }

  init(from reader: inout WireReader) throws(ProtocolError) {
    clock = try reader.get("clock")
    pirq = try reader.getBytes("interrupt routes", most: 4)
    mechanism = try StateRecord(from: &reader)
    bridge = try StateRecord(from: &reader)
    functions = try reader.getArray("functions", most: 256)
    regions = try reader.getArray("regions", most: 64)
    windows = try reader.getArray("windows", most: 64)
    mappings = try reader.getArray("mappings", most: 16)
    isSuspended = try reader.getBool("suspend flag")
    guard pirq.count == 4, pirq.allSatisfy({ $0 < 16 || $0 == 0xFF }), clock < 1 << 62 else {
      throw ProtocolError("interrupt routes or clock are none")
    }
    try mechanism.check()
    try bridge.check()
    for function in functions { try function.space.check() }
  }

  /// Puts all of it back; the machine stands, and its devices are gone.
  func restore(_ machine: Machine) throws(ProtocolError) {
    machine.clock.set(clock)
    machine.pirq.withLock { $0 = pirq }
    for link in machine.links {
      link.state.withLock {
        $0.windows = [:]
        $0.descriptors = [:]
      }
    }
    machine.progress.withLock { $0.isSuspended = isSuspended }
    var shown: [(link: DeviceLink, mapping: WindowMapping, byteCount: UInt64)] = []
    for mapping in mappings {
      guard let link = machine.links.first(where: { $0.role == mapping.role }) else {
        throw ProtocolError("there is no device \(mapping.role)")
      }
      shown.append((link, mapping.mapping, link.byteCount(ofMemory: mapping.mapping.memory)))
    }
    try machine.change { board throws(ProtocolError) in
      for link in machine.links {
        guard var mapping = board.windows[link.index] else { continue }
        mapping.isMapped = false
        try board.mapWindow(link, mapping, memoryByteCount: 0)
      }
      for (link, mapping, byteCount) in shown {
        try board.mapWindow(link, mapping, memoryByteCount: byteCount)
      }
      try mechanism.restore(&board.mechanism)
      try bridge.restore(&board.bridge)
      for function in functions {
        guard let index = board.functions.firstIndex(where: { $0.devfn == function.devfn }) else {
          throw ProtocolError("there is no PCI function \(function.devfn >> 3)")
        }
        try function.space.restore(&board.functions[index].space)
      }
      for region in regions {
        guard let link = machine.links.first(where: { $0.role == region.role }) else {
          throw ProtocolError("there is no device \(region.role)")
        }
        try board.move(link, region.move)
      }
    }
    // After the buses: what a window may reach depends on them.
    for window in windows {
      guard let link = machine.links.first(where: { $0.role == window.role }) else {
        throw ProtocolError("there is no device \(window.role)")
      }
      guard
        window.pieces.allSatisfy({
          $0.piece.direction != .close
            && machine.isReachable($0.piece.address, $0.piece.byteCount, $0.piece.direction)
        })
      else { throw ProtocolError("a DMA window of \(window.role) is not in RAM") }
      link.state.withLock {
        if window.isOpen {
          $0.windows[window.number] = DMAWindow(pieces: window.pieces.map(\.piece))
        }
        $0.descriptors[window.number] = window.registers
      }
    }
  }
}
