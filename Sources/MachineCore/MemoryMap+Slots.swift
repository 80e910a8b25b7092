// SPDX-License-Identifier: Apache-2.0

extension MemoryMap {
  /// The memory slots, in order of address, without overlaps.
  ///
  /// Neighbours that continue each other are one slot, except across C0000h and 1 MiB: so a
  /// change of a PAM register never touches the slots of the machine's main RAM.
  public var slots: [Slot] {
    let layers = layers
    var edges: Set<UInt64> = [0xC0000, 0x100000]
    for layer in layers {
      edges.insert(layer.start)
      edges.insert(layer.end)
    }
    var result: [Slot] = []
    let sorted = edges.sorted()
    for (start, end) in zip(sorted, sorted.dropFirst()) {
      guard let top = layers.first(where: { $0.start <= start && end <= $0.end }),
        let backing = top.backing
      else { continue }
      let piece = Slot(
        start: start, byteCount: end - start, backing: backing,
        offset: top.offset + (start - top.start), isReadOnly: top.isReadOnly,
        logsDirty: top.logsDirty)
      if let last = result.last, last.end == start, start != 0xC0000, start != 0x100000,
        last.backing == piece.backing, last.offset + last.byteCount == piece.offset,
        last.isReadOnly == piece.isReadOnly, last.logsDirty == piece.logsDirty
      {
        result[result.count - 1].byteCount += piece.byteCount
      } else {
        result.append(piece)
      }
    }
    return result
  }

  /// A range of addresses; without a backing it hides what lies under it.
  private struct Layer {
    var start: UInt64
    var end: UInt64
    var backing: Backing?
    var offset: UInt64 = 0
    var isReadOnly = false
    var logsDirty = false
  }

  /// Everything that decodes addresses, the uppermost first.
  private var layers: [Layer] {
    var layers = windows.compactMap { layer($0) }
    layers += [
      Layer(start: RAMLayout.vgaWindow.lowerBound, end: RAMLayout.vgaWindow.upperBound),
      // KVM has the interrupt controllers and four pages of its own here: a guest that moves
      // device memory onto them does not get that part.
      Layer(start: 0xFEC0_0000, end: 0xFEC0_1000),
      Layer(start: 0xFEE0_0000, end: 0xFEE0_1000),
      Layer(start: 0xFEFF_C000, end: 0xFF00_0000),
    ]
    for (index, segment) in segments.enumerated() {
      let range = Self.segmentRange(index)
      // RAM that is not there cannot be shadowed to.
      if segment.readsRAM && range.upperBound <= ram.low {
        layers.append(
          Layer(
            start: range.lowerBound, end: range.upperBound, backing: .ram,
            offset: range.lowerBound, isReadOnly: !segment.writesRAM,
            logsDirty: logsDirtyRAM && segment.writesRAM))
      }
    }
    layers += firmware
    // What a segment leaves to the bus hides the RAM there.
    layers.append(Layer(start: 0xC0000, end: 0x100000))
    layers.append(
      Layer(start: 0, end: ram.low, backing: .ram, logsDirty: logsDirtyRAM))
    if ram.high > 0 {
      layers.append(
        Layer(
          start: RAMLayout.highStart, end: RAMLayout.highStart + ram.high, backing: .ram,
          offset: ram.low, logsDirty: logsDirtyRAM))
    }
    layers += devices.compactMap { layer($0) }
    return layers
  }

  /// A device's memory, if it can have a slot.
  ///
  /// A guest may program a base address register with anything: what is not whole pages or wraps
  /// around has none, and its accesses leave the guest.
  private func layer(_ region: DeviceRegion) -> Layer? {
    guard region.byteCount > 0, (region.start | region.byteCount | region.offset) & 0xFFF == 0,
      region.start <= UInt64.max - region.byteCount
    else { return nil }
    return Layer(
      start: region.start, end: region.start + region.byteCount, backing: .device(region.device),
      offset: region.offset, isReadOnly: region.isReadOnly, logsDirty: region.logsDirty)
  }

  /// The firmware below 4 GiB, and its last 128 KiB again below 1 MiB.
  private var firmware: [Layer] {
    guard firmwareByteCount > 0 else { return [] }
    let alias = min(firmwareByteCount, 128 << 10)
    return [
      Layer(
        start: RAMLayout.highStart - firmwareByteCount, end: RAMLayout.highStart,
        backing: .firmware, isReadOnly: true),
      Layer(
        start: 0x100000 - alias, end: 0x100000, backing: .firmware,
        offset: firmwareByteCount - alias, isReadOnly: true),
    ]
  }
}

// MARK: - Changes

/// The slots that KVM has, by number, and the steps from one map to the next.
public struct SlotPlan: Equatable, Sendable {
  /// One request to KVM.
  public enum Step: Equatable, Sendable {
    case delete(UInt32)
    /// Creates a slot, moves one that shows the same memory, or changes its dirty log.
    case set(UInt32, MemoryMap.Slot)
  }

  /// The slots by number; a number without a slot is free.
  public private(set) var slots: [UInt32: MemoryMap.Slot] = [:]

  public init() {}

  /// Returns the steps to `map`, in order, and takes them as done.
  ///
  /// A slot that stays keeps its number and is not touched; one that only moves, or only
  /// starts or stops its dirty log, is changed in place. Deletions come first, so that no step
  /// makes an overlap.
  public mutating func steps(to map: MemoryMap) -> [Step] {
    let target = map.slots
    var wanted = target.filter { !slots.values.contains($0) }
    let changing = slots.filter { !target.contains($0.value) }.sorted { $0.key < $1.key }

    var deletions: [Step] = []
    var changes: [Step] = []
    for (number, old) in changing {
      if let place = wanted.firstIndex(where: { canBecome(old, $0) }) {
        let new = wanted.remove(at: place)
        changes.append(.set(number, new))
        slots[number] = new
      } else {
        deletions.append(.delete(number))
        slots[number] = nil
      }
    }
    var number: UInt32 = 0
    for new in wanted {
      while slots[number] != nil { number += 1 }
      changes.append(.set(number, new))
      slots[number] = new
    }
    return deletions + changes
  }

  /// Whether KVM can change `old` into `new` in place.
  private func canBecome(_ old: MemoryMap.Slot, _ new: MemoryMap.Slot) -> Bool {
    guard old.backing == new.backing, old.offset == new.offset,
      old.byteCount == new.byteCount, old.isReadOnly == new.isReadOnly
    else { return false }
    // KVM takes a move or a new flag, not both at once.
    if old.start == new.start { return true }
    guard old.logsDirty == new.logsDirty else { return false }
    // A move onto a place that another slot still holds is not possible.
    return !slots.values.contains { $0.overlaps(new) }
  }
}
