// SPDX-License-Identifier: Apache-2.0

internal import Monitor
internal import Synchronization

/// What a debugger wants of the vCPUs, as their threads see it.
final class Debugger: Sendable {
  private struct State {
    var request = DebugRequest()
    /// vCPUs that have stopped for it, and wait for its next request.
    var stopped: Set<Int> = []
  }

  private let state = Mutex(State())
  private let active = Atomic<Bool>(false)

  /// Whether the vCPUs have to look before each instruction.
  var isActive: Bool { active.load(ordering: .relaxed) }

  /// Takes a new request; the vCPUs are parked.
  func set(_ request: DebugRequest) {
    state.withLock { $0 = State(request: request) }
    let isActive =
      !request.points.isEmpty || request.steps != DebugRequest.noStep
      || request.runs != DebugRequest.all
    active.store(isActive, ordering: .sequentiallyConsistent)
  }

  func stop(_ cpu: Int) { state.withLock { _ = $0.stopped.insert(cpu) } }

  /// Whether a vCPU waits for the debugger's next request, or for another one's step.
  func isStopped(_ cpu: Int) -> Bool {
    isActive
      && state.withLock { state in
        state.stopped.contains(cpu)
          || state.request.runs != DebugRequest.all && Int(state.request.runs) != cpu
      }
  }

  func isStepping(_ cpu: Int) -> Bool {
    isActive && state.withLock { Int($0.request.steps) == cpu }
  }

  /// Lets vCPUs that have stopped go on.
  func goOn() { state.withLock { $0.stopped = [] } }

  /// The points in the order in which a processor's debug registers have them.
  var points: [DebugRequest.Point] { state.withLock { $0.request.points } }

  /// What one vCPU looks for from now on.
  func watch(_ cpu: Int, _ memory: GuestMemory) -> Watch {
    let request = state.withLock { $0.request }
    return Watch(request, isStep: Int(request.steps) == cpu, memory)
  }

  /// The places that one vCPU stops at.
  struct Watch {
    let isStep: Bool
    private let places: [UInt64]
    private let writes: [DebugRequest.Point]
    /// What each access is compared with.
    let accesses: [DebugRequest.Point]
    private var values: [UInt64]

    init(_ request: DebugRequest, isStep: Bool, _ memory: GuestMemory) {
      self.isStep = isStep
      places = request.points.filter { $0.kind == .execution }.map(\.address)
      let writes = request.points.filter { $0.kind == .write }
      self.writes = writes
      accesses = request.points.filter { $0.kind == .read || $0.kind == .access }
      values = writes.map { Self.value($0, memory) }
    }

    func hasPoint(at address: UInt64) -> Bool { places.contains(address) }

    /// The linear address of a watched value that is another by now.
    mutating func change(_ memory: GuestMemory) -> UInt64? {
      var found: UInt64?
      for place in writes.indices {
        let value = Self.value(writes[place], memory)
        guard value != values[place] else { continue }
        values[place] = value
        found = found ?? writes[place].address
      }
      return found
    }

    private static func value(_ point: DebugRequest.Point, _ memory: GuestMemory) -> UInt64 {
      let bytes = (try? memory.bytes(at: point.physical, count: Int(point.byteCount))) ?? []
      return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
  }
}
