// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol

/// Register accesses: the lane's slots and its ring.
extension ServiceLoop {
  /// Posted writes done between two commits, at most.
  private static let batch: UInt32 = 256

  mutating func serve<E: DeviceEndpoint>(_ slot: Int, _ endpoint: inout E) {
    let lane = services.lane
    let sequence = lane.sequence(slot)
    guard sequence != sequences[slot] else {
      lane.answer(slot)
      return
    }
    services.waitingSlot = slot
    defer { services.waitingSlot = nil }
    // Posted writes that came before this request are done first.
    let head = lane.head
    let areJoined = head != tail && head &- tail <= Self.batch && endpoint.hasQuietPosts
    if areJoined {
      write(&endpoint, to: head)
    } else if head != tail {
      drain(&endpoint, to: head)
    }
    guard let request = lane.request(slot), let width = AccessWidth(rawValue: request.width) else {
      DeviceProcess.end("the core put a malformed request into slot \(slot)")
    }
    if request.descriptorBytes > 0 {
      endpoint.descriptorRead(
        lane.block(slot, count: Int(request.descriptorBytes)),
        window: UInt16(clamping: request.window), services: services)
    }
    var value: UInt64 = 0
    var items: UInt32 = 1
    switch request.operation {
    case .read:
      value = endpoint.read(
        region: request.region, offset: request.offset, width: width, services: services)
    case .write:
      endpoint.write(
        request.value, region: request.region, offset: request.offset, width: width,
        services: services)
    case .readBlock:
      let bytes = endpoint.readBlock(
        region: request.region, offset: request.offset, width: width, items: Int(request.items),
        services: services)
      lane.setBlock(slot, bytes)
      items = UInt32(bytes.count / width.byteCount)
    case .writeBlock:
      let bytes = lane.block(slot, count: Int(request.items) * width.byteCount)
      endpoint.writeBlock(
        bytes, region: request.region, offset: request.offset, width: width, services: services)
      items = request.items
    }
    lane.prepare(slot, value: value, items: items)
    sequences[slot] = sequence
    commit(&endpoint)
    endpoint.publish(services)
    if areJoined { lane.setTail(tail) }
    lane.answer(slot)
  }

  /// Does posted writes without a commit.
  private mutating func write<E: DeviceEndpoint>(_ endpoint: inout E, to head: UInt32) {
    while tail != head {
      if let access = services.lane.posted(tail), let width = AccessWidth(rawValue: access.width) {
        endpoint.write(
          access.value, region: access.region, offset: access.offset, width: width,
          services: services)
      }
      tail &+= 1
    }
  }

  mutating func drain<E: DeviceEndpoint>(_ endpoint: inout E, to head: UInt32) {
    guard head &- tail <= UInt32(LaneLayout.ringCapacity) else {
      DeviceProcess.end("the ring of posted writes holds more than its capacity")
    }
    while tail != head {
      write(&endpoint, to: tail &+ min(head &- tail, Self.batch))
      commit(&endpoint)
      endpoint.publish(services)
      services.lane.setTail(tail)
    }
  }
}
