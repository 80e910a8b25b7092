// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import LinuxSystem
internal import Monitor

/// The trace of register accesses, for one operator at a time.
extension MachineControl {
  func trace(_ request: TraceRequest, _ client: Channel) throws(Refusal) {
    guard tracer == nil || tracer === client.socket else {
      throw Refusal("another client traces already")
    }
    guard request.isOn else {
      stopTracing(client.socket)
      return
    }
    var filter = AccessTrace.Filter(kinds: Set(request.kinds))
    if !request.role.isEmpty {
      guard let link = machine.links.first(where: { $0.role == request.role }) else {
        throw Refusal("the machine has no device \(request.role)")
      }
      filter.link = link.index
    }
    if let range = request.range {
      filter.places = places(range)
      guard filter.places?.isEmpty == false else {
        throw Refusal("no device's registers are there")
      }
    }
    machine.trace.start(filter)
    tracer = client.socket
  }

  /// Ends the trace of a client, if it has one.
  func stopTracing(_ client: PacketSocket) {
    guard tracer === client else { return }
    machine.trace.stop()
    tracer = nil
  }

  /// The parts of regions that lie in a range now; they are followed when the guest moves them.
  private func places(_ range: TraceRequest.Range) -> [AccessTrace.Filter.Place] {
    let snapshot = machine.snapshot()
    let regions: [(base: UInt64, byteCount: UInt64, target: RegionTarget)] =
      range.space == .ports
      ? snapshot.portRegions.map { (UInt64($0.base), UInt64($0.count), $0.target) }
      : snapshot.memoryRegions.map { ($0.base, $0.byteCount, $0.target) }
    return regions.compactMap { region in
      let last = region.base &+ region.byteCount &- 1
      guard region.byteCount > 0, range.first <= last, region.base <= range.last else {
        return nil
      }
      let first = max(range.first, region.base) - region.base
      return AccessTrace.Filter.Place(
        link: region.target.link.index, region: region.target.region,
        offsets: first...max(first, min(range.last, last) - region.base))
    }
  }

  func traceRecords() -> TraceReply {
    let (records, lost) = machine.trace.take(TraceReply.most)
    let snapshot = machine.snapshot()
    return TraceReply(
      lost: lost, roles: machine.links.map(\.role),
      records: records.map { record in
        let access = record.access
        // Where the region is by now; one that is nowhere is a function's configuration space,
        // or was moved away.
        var place = (space: TraceReply.Space.function, base: UInt64(0))
        func isIt(_ target: RegionTarget) -> Bool {
          target.link.index == record.link && target.region == access.region
        }
        if let region = snapshot.portRegions.first(where: { isIt($0.target) }) {
          place = (.ports, UInt64(region.base))
        } else if let region = snapshot.memoryRegions.first(where: { isIt($0.target) }) {
          place = (.memory, region.base)
        }
        return TraceReply.Record(
          time: record.time, cpu: record.cpu.map { UInt16($0) } ?? TraceReply.noCPU,
          device: UInt8(record.link), kind: record.kind, operation: access.operation,
          space: place.space, address: place.base &+ access.offset, width: access.width,
          items: access.items, value: record.value, latency: record.latency)
      })
  }
}
