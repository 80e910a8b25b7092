// SPDX-License-Identifier: Apache-2.0

public import DeviceProtocol

/// How latencies are counted: by buckets, two to each doubling.
///
/// Bucket 0 is up to 256 ns; the others end, inclusively, at 1.5 × 2^k and 2^(k+1) ns in turn;
/// the last has no end.
public enum LatencyBuckets {
  public static let count = 56

  /// The bucket of a latency in nanoseconds.
  @inlinable
  public static func index(of nanoseconds: UInt64) -> Int {
    guard nanoseconds > 256 else { return 0 }
    let value = nanoseconds - 1
    let exponent = 63 - value.leadingZeroBitCount
    let half = Int(value >> UInt64(exponent - 1) & 1)
    return min(1 + 2 * (exponent - 8) + half, count - 1)
  }

  /// The most nanoseconds of a bucket; `nil` for the last one.
  public static func bound(_ index: Int) -> UInt64? {
    guard index < count - 1 else { return nil }
    guard index > 0 else { return 256 }
    let start = UInt64(1) << UInt64(8 + (index - 1) / 2)
    return index % 2 == 1 ? start + start / 2 : 2 * start
  }
}

/// How long accesses have taken.
public struct LatencyHistogram: Equatable, WireCodable, Sendable {
  /// The sum of all latencies in nanoseconds.
  public var sum: UInt64 = 0
  /// How many accesses each of ``LatencyBuckets`` has.
  public var counts = [UInt64](repeating: 0, count: LatencyBuckets.count)

  public init() {}

  /// How many accesses there were.
  public var total: UInt64 { counts.reduce(0, &+) }

  /// Adds one latency in nanoseconds.
  public mutating func add(_ nanoseconds: UInt64) {
    sum &+= nanoseconds
    counts[LatencyBuckets.index(of: nanoseconds)] &+= 1
  }

  /// Adds another histogram.
  public mutating func add(_ other: LatencyHistogram) {
    sum &+= other.sum
    for index in counts.indices { counts[index] &+= other.counts[index] }
  }

  /// What has come since an earlier state of the same histogram.
  public func since(_ earlier: LatencyHistogram) -> LatencyHistogram {
    var result = LatencyHistogram()
    result.sum = sum &- earlier.sum
    for index in counts.indices {
      result.counts[index] =
        counts[index] > earlier.counts[index] ? counts[index] - earlier.counts[index] : 0
    }
    return result
  }

  /// The latency that a share of the accesses does not exceed, in nanoseconds; `nil` without any.
  ///
  /// It is the bound of a bucket: up to half as much again as the true value.
  public func quantile(_ share: Double) -> UInt64? {
    let total = self.total
    guard total > 0 else { return nil }
    let wanted = max(1, (Double(total) * share).rounded(.up))
    var seen: UInt64 = 0
    for index in counts.indices {
      seen &+= counts[index]
      if Double(seen) >= wanted {
        return LatencyBuckets.bound(index) ?? LatencyBuckets.bound(LatencyBuckets.count - 2)
      }
    }
    return nil
  }

  /// Only buckets that are not empty are sent.
  private struct Bucket: WireCodable {
    var index: UInt8
    var count: UInt64

    init(index: UInt8, count: UInt64) {
      self.index = index
      self.count = count
    }

    func encode(to writer: inout WireWriter) {
      writer.put(index)
      writer.put(count)
    }

    init(from reader: inout WireReader) throws(ProtocolError) {
      index = try reader.get("bucket")
      count = try reader.get("count")
      guard index < LatencyBuckets.count else { throw ProtocolError("bucket \(index)") }
    }
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(sum)
    writer.put(
      counts.indices.filter { counts[$0] > 0 }.map {
        Bucket(index: UInt8($0), count: counts[$0])
      })
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    sum = try reader.get("sum")
    let buckets: [Bucket] = try reader.getArray("buckets", most: LatencyBuckets.count)
    for bucket in buckets { counts[Int(bucket.index)] = bucket.count }
  }
}

/// The reply to ``ControlRequest/metrics``: what has been counted since the machine's start.
public struct MetricsReply: Equatable, WireCodable, Sendable {
  /// One device.
  public struct Device: Equatable, WireCodable, Sendable {
    /// What a live access does, in the order of ``latencies``.
    public static let operations = ["read", "write", "read_block", "write_block"]

    public var role: String
    /// Whether its process serves the guest now.
    public var isUp: Bool
    /// How often its process was started anew.
    public var restarts: UInt32
    /// Live, posted and mirrored register accesses.
    public var live: UInt64
    public var posted: UInt64
    public var mirrored: UInt64
    /// How long live accesses have taken, for each of ``operations``.
    public var latencies: [LatencyHistogram]

    public init(
      role: String, isUp: Bool, restarts: UInt32, live: UInt64, posted: UInt64,
      mirrored: UInt64, latencies: [LatencyHistogram]
    ) {
      self.role = role
      self.isUp = isUp
      self.restarts = restarts
      self.live = live
      self.posted = posted
      self.mirrored = mirrored
      self.latencies = latencies
    }

    public func encode(to writer: inout WireWriter) {
      writer.put(role)
      writer.put(isUp)
      writer.put(restarts)
      writer.put(live)
      writer.put(posted)
      writer.put(mirrored)
      writer.put(latencies)
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      role = try reader.getString("role", most: 31)
      isUp = try reader.getBool("state")
      restarts = try reader.get("restarts")
      live = try reader.get("live accesses")
      posted = try reader.get("posted writes")
      mirrored = try reader.get("mirrored reads")
      latencies = try reader.getArray("latencies", most: Self.operations.count)
      guard latencies.count == Self.operations.count else {
        throw ProtocolError("\(latencies.count) histograms")
      }
    }
  }

  /// A drive or a port: the counters of ``DeviceCounter``, in their order.
  ///
  /// They are the device's own words.
  public struct Counters: Equatable, WireCodable, Sendable {
    public var values: [UInt64]

    public init(values: [UInt64]) { self.values = values }

    /// A drive's counter; zero when it has none.
    public subscript(counter: DeviceCounter.Drive) -> UInt64 { self[counter.rawValue] }
    /// A port's counter; zero when it has none.
    public subscript(counter: DeviceCounter.Port) -> UInt64 { self[counter.rawValue] }

    private subscript(place: Int) -> UInt64 { place < values.count ? values[place] : 0 }

    public func encode(to writer: inout WireWriter) {
      writer.put(UInt32(values.count))
      for value in values { writer.put(value) }
    }

    public init(from reader: inout WireReader) throws(ProtocolError) {
      let count: UInt32 = try reader.get("counters")
      guard count <= 16 else { throw ProtocolError("\(count) counters") }
      values = []
      for _ in 0..<count { values.append(try reader.get("counter")) }
    }
  }

  public var machine: String
  public var isRunning: Bool
  /// The virtual clock in nanoseconds.
  public var clock: UInt64
  /// Events that subscribers did not take in time.
  public var lostEvents: UInt64
  public var devices: [Device]
  /// ide0.0, ide0.1, ide1.0 and ide1.1, there or not.
  public var drives: [Counters]
  /// COM1 to COM4, there or not.
  public var ports: [Counters]

  public init(
    machine: String, isRunning: Bool, clock: UInt64, lostEvents: UInt64, devices: [Device],
    drives: [Counters], ports: [Counters]
  ) {
    self.machine = machine
    self.isRunning = isRunning
    self.clock = clock
    self.lostEvents = lostEvents
    self.devices = devices
    self.drives = drives
    self.ports = ports
  }

  public func encode(to writer: inout WireWriter) {
    writer.put(machine)
    writer.put(isRunning)
    writer.put(clock)
    writer.put(lostEvents)
    writer.put(devices)
    writer.put(drives)
    writer.put(ports)
  }

  public init(from reader: inout WireReader) throws(ProtocolError) {
    machine = try reader.getString("machine", most: 63)
    isRunning = try reader.getBool("state")
    clock = try reader.get("clock")
    lostEvents = try reader.get("lost events")
    devices = try reader.getArray("devices", most: 16)
    drives = try reader.getArray("drives", most: DeviceCounter.drives)
    ports = try reader.getArray("ports", most: DeviceCounter.ports)
  }
}

/// Asks for the level of the lines that are logged, and may change it first
/// (``ControlRequest/logLevel``).
public struct LogLevelRequest: Equatable, WireCodable, Sendable {
  public var level: LogLevel?

  public init(level: LogLevel?) { self.level = level }

  public func encode(to writer: inout WireWriter) { writer.put(level?.rawValue ?? 0) }
  public init(from reader: inout WireReader) throws(ProtocolError) {
    let number: UInt8 = try reader.get("log level")
    level = LogLevel(rawValue: number)
    guard number == 0 || level != nil else { throw ProtocolError("log level cannot be \(number)") }
  }
}
