// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import KVM
internal import LinuxSystem
internal import PCI
internal import Synchronization

/// The thread of one vCPU: runs the guest and does what its exits ask for.
struct VCPULoop {
  let machine: Machine
  private let vcpu: VCPU
  var cpu: CPUContext
  var bus: BusSnapshot
  /// The bus's generation when the last internal error was tried again.
  private var retried: UInt32 = 0

  init(_ machine: Machine, _ vcpu: VCPU, _ index: Int) {
    self.machine = machine
    self.vcpu = vcpu
    cpu = CPUContext(machine: machine, slot: index, links: machine.links.count)
    bus = machine.snapshot()
  }

  consuming func run() {
    VCPU.prepareThread()
    do throws(KVMError) {
      while true {
        let mode = machine.mode.value
        if mode != Machine.Mode.run {
          try park()
          if machine.mode.value == Machine.Mode.end { return }
          continue
        }
        let before = bus.generation
        let exit = try vcpu.run()
        machine.snapshot(&bus)
        handle(exit, generation: before)
      }
    } catch {
      machine.post(.end(code: 2, reason: "CPU \(cpu.slot): \(error)"))
      idle()
    }
  }

  /// Finishes the access that is under way, so that the vCPU's registers are complete, and
  /// sleeps until the machine runs on.
  private mutating func park() throws(KVMError) {
    while let exit = try vcpu.completeAccess() {
      machine.snapshot(&bus)
      handle(exit, generation: bus.generation)
    }
    machine.parked.add(1)
    while machine.mode.value == Machine.Mode.park {
      machine.mode.wait(while: Machine.Mode.park)
    }
    machine.parked.add(UInt32.max)
  }

  /// Waits for the main thread to decide: the vCPU cannot go on by itself.
  private func idle() {
    while machine.mode.value == Machine.Mode.run { machine.mode.wait(while: Machine.Mode.run) }
  }

  // MARK: - Exits

  private mutating func handle(_ exit: Exit, generation: UInt32) {
    switch exit {
    case .io(let access): access.isWrite ? output(access) : input(access)
    case .mmio(let access): access.isWrite ? store(access) : load(access)
    case .halt, .interrupted, .interruptWindowOpen, .endOfInterrupt: break
    case .shutdown:
      machine.tripleFault(cpu.slot, registers)
      idle()
    case .internalError(let suberror):
      // The memory slots changed under an instruction fetch: it works the second time.
      if generation != bus.generation, retried != bus.generation {
        retried = bus.generation
        return
      }
      let bytes = vcpu.failedInstruction.map { byte in
        let text = String(byte, radix: 16)
        return text.count == 1 ? "0" + text : text
      }.joined(separator: " ")
      die(
        "KVM could not go on: internal error \(suberror)"
          + (bytes.isEmpty ? "" : " at an instruction with the bytes \(bytes)"))
    case .failEntry(let reason): die("the processor refused to enter the guest: \(reason)")
    case .systemEvent(let type):
      machine.post(.end(code: type == 1 ? 0 : 2, reason: "KVM system event \(type)"))
      idle()
    case .debug: break
    case .unknown(let reason): die("KVM exit \(reason), which nobody asked for")
    }
  }

  private var registers: String { (try? vcpu.state().registerText) ?? "registers not readable" }

  private func die(_ reason: String) {
    machine.post(.end(code: 2, reason: "CPU \(cpu.slot): \(reason)\n\(registers)"))
    idle()
  }

  // MARK: - Ports

  private mutating func input(_ access: Exit.PortAccess) {
    guard let width = AccessWidth(rawValue: access.width) else { return }
    if access.count == 1 {
      vcpu.setPortData(access, 0, UInt32(truncatingIfNeeded: read(access.port, width)))
      return
    }
    if inputBlock(access, width) { return }
    for index in 0..<Int(access.count) {
      vcpu.setPortData(access, index, UInt32(truncatingIfNeeded: read(access.port, width)))
    }
  }

  private mutating func output(_ access: Exit.PortAccess) {
    guard let width = AccessWidth(rawValue: access.width) else { return }
    if access.count > 1, outputBlock(access, width) { return }
    for index in 0..<Int(access.count) {
      write(UInt64(vcpu.portData(access, index)), access.port, width)
    }
  }

  /// The region that answers for all bytes of an access, or `nil`.
  private func region(_ port: UInt16, _ width: AccessWidth) -> BusSnapshot.PortRegion? {
    let number = bus.ports[Int(port)]
    guard number != 0 else { return nil }
    let region = bus.portRegions[Int(number) - 1]
    guard Int(port - region.base) + width.byteCount <= Int(region.count) else { return nil }
    // Where regions overlap, a part of this one may belong to another.
    for lane in 1..<max(2, width.byteCount) where lane < width.byteCount {
      guard bus.ports[Int(port) + lane] == number else { return nil }
    }
    return region
  }

  /// One request for several items, such as `rep insw`.
  private mutating func inputBlock(_ access: Exit.PortAccess, _ width: AccessWidth) -> Bool {
    guard access.byteCount <= LaneLayout.blockBytes, let region = region(access.port, width) else {
      return false
    }
    let link = region.target.link
    let request = LaneAccess(
      .readBlock, width: access.width, region: region.target.region,
      offset: UInt64(access.port - region.base), items: access.count)
    let at = link.lane.blockOffset(cpu.slot)
    guard let reply = link.live(request, &cpu) else { return false }
    // Items that the device left out read as ones.
    let done = min(Int(reply.items), Int(access.count)) * width.byteCount
    link.lane.blockMemory.fill(0xFF, at: at + done, count: access.byteCount - done)
    vcpu.setPortData(access, from: link.lane.blockMemory, at: at)
    return true
  }

  private mutating func outputBlock(_ access: Exit.PortAccess, _ width: AccessWidth) -> Bool {
    guard access.byteCount <= LaneLayout.blockBytes, let region = region(access.port, width),
      region.target.descriptors.isEmpty
    else { return false }
    let link = region.target.link
    vcpu.copyPortData(access, to: link.lane.blockMemory, at: link.lane.blockOffset(cpu.slot))
    let request = LaneAccess(
      .writeBlock, width: access.width, region: region.target.region,
      offset: UInt64(access.port - region.base), items: access.count)
    return link.live(request, &cpu) != nil
  }

  private mutating func read(_ port: UInt16, _ width: AccessWidth) -> UInt64 {
    if (0xCF8...0xCFF).contains(port), let value = readConfiguration(port - 0xCF8, width) {
      return value
    }
    if let region = region(port, width) {
      return region.target.link.read(
        region.target, UInt64(port - region.base), width, &cpu)
    }
    guard width != .byte else { return 0xFF }
    // Nobody answers for all of it: each byte goes its own way, as on the bus.
    var value: UInt64 = 0
    for lane in 0..<UInt16(width.rawValue) {
      value |= read(port &+ lane, .byte) << UInt64(8 * lane)
    }
    return value
  }

  private mutating func write(_ value: UInt64, _ port: UInt16, _ width: AccessWidth) {
    if (0xCF8...0xCFF).contains(port), writeConfiguration(value, port - 0xCF8, width) { return }
    if let region = region(port, width) {
      write(value, region.target, UInt64(port - region.base), width)
      return
    }
    guard width != .byte else { return }
    for lane in 0..<UInt16(width.rawValue) {
      write(value >> UInt64(8 * lane) & 0xFF, port &+ lane, .byte)
    }
  }

  mutating func write(
    _ value: UInt64, _ target: RegionTarget, _ offset: UInt64, _ width: AccessWidth
  ) {
    guard !target.descriptors.isEmpty else {
      target.link.write(value, target, offset, width, &cpu)
      return
    }
    let content = target.link.snoop(value, target, offset, width, machine)
    target.link.write(value, target, offset, width, &cpu, content: content)
  }

  // MARK: - Memory

  private func memoryRegion(_ address: UInt64) -> BusSnapshot.MemoryRegion? {
    bus.memoryRegions.first { address >= $0.base && address - $0.base < $0.byteCount }
  }

  /// Calls `body` for each aligned piece of an access, with its place in the data.
  private func pieces(_ address: UInt64, _ byteCount: Int) -> [(UInt64, Int, AccessWidth)] {
    if let width = AccessWidth(rawValue: UInt8(byteCount)) { return [(address, 0, width)] }
    return (0..<byteCount).map { (address &+ UInt64($0), $0, .byte) }
  }

  private mutating func load(_ access: Exit.MemoryAccess) {
    var data: UInt64 = 0
    for (address, lane, width) in pieces(access.address, Int(access.byteCount)) {
      var value = width.floating
      if let region = memoryRegion(address) {
        value = region.target.link.read(
          region.target, address - region.base, width, &cpu)
      } else if let bytes = try? machine.memory.bytes(at: address, count: width.byteCount),
        machine.isReachable(address, UInt64(width.rawValue), .fromGuest)
      {
        // Another vCPU was changing the slots at this moment.
        value = bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
      }
      data |= value << UInt64(8 * lane)
    }
    vcpu.setMemoryData(data)
  }

  private mutating func store(_ access: Exit.MemoryAccess) {
    for (address, lane, width) in pieces(access.address, Int(access.byteCount)) {
      let value = access.data >> UInt64(8 * lane) & width.mask
      if let region = memoryRegion(address) {
        write(value, region.target, address - region.base, width)
        continue
      }
      let isRAM = machine.isReachable(address, UInt64(width.rawValue), .toGuest)
      guard isRAM else { continue }
      let bytes = (0..<width.byteCount).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) }
      try? machine.memory.write(bytes, at: address)
    }
  }
}
