// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel
internal import DeviceProtocol
internal import Monitor
internal import Synchronization

/// The register accesses that the operator has asked for, until they are fetched.
///
/// While it is off an access costs one load more. While it is on the vCPUs' threads share a lock
/// and a ring of ``capacity`` records; what has no place there is lost, and is counted.
final class AccessTrace: Sendable {
  /// The most records that wait.
  static let capacity = 16384

  /// One access, by the device's own numbers.
  struct Record: Sendable {
    var time: UInt64
    var link: Int
    var access: LaneAccess
    var kind: TraceReply.Kind
    var value: UInt64
    var cpu: Int?
    var latency: UInt64
  }

  /// Which accesses are wanted.
  struct Filter: Sendable {
    /// A part of a device's region.
    struct Place: Sendable {
      var link: Int
      var region: UInt16
      var offsets: ClosedRange<UInt64>
    }

    /// The device's number; `nil` for all.
    var link: Int?
    var kinds: Set<TraceReply.Kind> = []
    /// `nil` for all.
    var places: [Place]?

    func wants(_ link: Int, _ access: LaneAccess, _ kind: TraceReply.Kind) -> Bool {
      guard self.link == nil || self.link == link, kinds.contains(kind) else { return false }
      guard let places else { return true }
      let last = access.offset &+ UInt64(max(access.width, 1)) &- 1
      return places.contains {
        $0.link == link && $0.region == access.region && $0.offsets.lowerBound <= last
          && access.offset <= $0.offsets.upperBound
      }
    }
  }

  private struct State {
    var filter: Filter?
    /// A ring: `count` records from `first` on.
    var records: [Record] = []
    var first = 0
    var count = 0
    var lost: UInt64 = 0
  }

  private let switched = Atomic<Bool>(false)
  private let state = Mutex(State())

  @inline(__always)
  var isOn: Bool { switched.load(ordering: .relaxed) }

  /// Begins anew with a filter.
  func start(_ filter: Filter) {
    let empty = Record(
      time: 0, link: 0, access: LaneAccess(.read, width: 1, region: 0, offset: 0), kind: .live,
      value: 0, cpu: nil, latency: 0)
    let records = [Record](repeating: empty, count: Self.capacity)
    state.withLock { $0 = State(filter: filter, records: records) }
    switched.store(true, ordering: .releasing)
  }

  /// Ends it; records that were not fetched are gone.
  func stop() {
    switched.store(false, ordering: .releasing)
    state.withLock { $0 = State() }
  }

  /// Notes one access, if it is wanted.
  @inline(never)
  func note(
    _ access: LaneAccess, _ kind: TraceReply.Kind, _ value: UInt64, of link: DeviceLink,
    cpu: Int?, latency: UInt64 = 0
  ) {
    let time = link.clock.now().nanoseconds
    state.withLock { state in
      guard let filter = state.filter, filter.wants(link.index, access, kind) else { return }
      guard state.count < state.records.count else {
        state.lost &+= 1
        return
      }
      state.records[(state.first + state.count) % state.records.count] = Record(
        time: time, link: link.index, access: access, kind: kind, value: value, cpu: cpu,
        latency: latency)
      state.count += 1
    }
  }

  /// Takes the oldest records, at most `most`, and how many were lost since the start.
  func take(_ most: Int) -> (records: [Record], lost: UInt64) {
    state.withLock { state in
      var taken: [Record] = []
      while taken.count < most, state.count > 0 {
        taken.append(state.records[state.first])
        state.first = (state.first + 1) % state.records.count
        state.count -= 1
      }
      return (taken, state.lost)
    }
  }
}
