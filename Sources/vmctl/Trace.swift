// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor

struct Trace: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the guest's register accesses as they happen.",
    discussion: """
      One line for each: virtual time, vCPU, device, kind, direction, address, register, value, \
      and how long the vCPU waited. Kinds: live (the device was asked), posted (a write that \
      nobody waits for), mirrored (a read that the core has answered). Memory that is mapped, such \
      as the linear frame buffer, is not accessed by register.

      It ends with --count, --seconds, ctrl-c or the machine. Accesses that come faster than they \
      can be written are lost, and counted at the end. While nobody traces nothing is noted. One \
      client at a time can trace a machine.
      """)
  @OptionGroup var machine: MachineName
  @Option(help: "Only one device's: piix, ide, serial or vga.")
  var device = ""
  @Option(help: "Only these kinds: live, posted, mirrored, separated by commas.")
  var kind = "live,posted,mirrored"
  @Option(help: "Only these ports: a number or FIRST-LAST, such as 0x3f8-0x3ff.")
  var ports: String?
  @Option(help: "Only this memory: an address or FIRST-LAST.")
  var memory: String?
  @Option(help: "End after this many accesses.")
  var count: Int?
  @Option(help: "End after this many seconds.")
  var seconds: Double?
  @Option(name: .shortAndLong, help: "Write to a file instead.", completion: .file())
  var output: String?
  @Flag(help: "One JSON object for each access.")
  var json = false

  func validate() throws {
    guard device.isEmpty || Device.roles.contains(device) else {
      throw ValidationError("accepted: --device \(Device.roles.joined(separator: ", "))")
    }
    guard kinds() != nil else {
      throw ValidationError("accepted: --kind live, posted, mirrored, or several of them")
    }
    guard ports == nil || memory == nil else {
      throw ValidationError("accepted: one of --ports and --memory")
    }
    if let ports, Self.range(ports, most: 0xFFFF) == nil {
      throw ValidationError("accepted: --ports N or N-N, with N from 0 to 0xFFFF")
    }
    if let memory, Self.range(memory, most: .max) == nil {
      throw ValidationError("accepted: --memory ADDRESS or ADDRESS-ADDRESS")
    }
    if let count, count < 1 { throw ValidationError("accepted: --count 1 and more") }
    if let seconds, !(seconds > 0 && seconds <= 1e9) {
      throw ValidationError("accepted: --seconds above 0")
    }
  }

  private func kinds() -> [TraceReply.Kind]? {
    var kinds: [TraceReply.Kind] = []
    for word in kind.split(separator: ",", omittingEmptySubsequences: false) {
      guard let found = TraceReply.Kind.allCases.first(where: { "\($0)" == word }) else {
        return nil
      }
      kinds.append(found)
    }
    return kinds
  }

  private static func number(_ text: Substring) -> UInt64? {
    text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
  }

  static func range(_ text: String, most: UInt64) -> (first: UInt64, last: UInt64)? {
    let parts = text.split(separator: "-", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let first = number(parts[0]),
      let last = number(parts[parts.count - 1]), first <= last, last <= most
    else { return nil }
    return (first, last)
  }

  /// How long to wait when there was nothing, in nanoseconds.
  private static let pause: UInt64 = 20_000_000

  func run() {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      let client = try machine.connect()
      let file: Descriptor
      Signals.block(Signals.ending)
      let signals: Descriptor
      do throws(SystemError) {
        signals = try Signals.descriptor(Signals.ending)
        if let output {
          file = try Files.open(output, [.writeOnly, .create, .truncate], permissions: 0o644)
        } else {
          file = try Files.standardStream(1)
        }
      } catch {
        throw ControlClient.Failure("\(error)")
      }
      let ranges: [TraceRequest.Range] = [
        (ports, TraceReply.Space.ports), (memory, .memory),
      ].compactMap { text, space in
        text.flatMap { Self.range($0, most: .max) }.map {
          TraceRequest.Range(space: space, first: $0.first, last: $0.last)
        }
      }
      let _: Empty = try client.ask(
        .trace,
        TraceRequest(isOn: true, role: device, kinds: kinds() ?? [], range: ranges.first))
      let lost = try follow(client, file, signals)
      if lost > 0 {
        try? Files.standardStream(2).writeAll(
          Array("vmctl: \(lost) accesses were lost, because they came too fast\n".utf8))
      }
    }
  }

  /// Writes what comes; returns how many were lost.
  private func follow(
    _ client: ControlClient, _ file: Descriptor, _ signals: Descriptor
  ) throws(ControlClient.Failure) -> UInt64 {
    let end = seconds.map { HostClock.monotonic() &+ UInt64($0 * 1e9) }
    var left = count ?? .max
    var lost: UInt64 = 0
    var poller = Poller()
    poller.add(signals, .readable)
    while left > 0 {
      let reply: TraceReply
      do throws(ControlClient.Failure) {
        reply = try client.ask(.traceRecords, Empty())
      } catch {
        // The machine's end is an end like others.
        guard "\(error)".hasSuffix("has ended") else { throw error }
        return lost
      }
      lost = reply.lost
      let records = reply.records.prefix(left)
      left -= records.count
      let text = records.map {
        (json ? TraceText.json($0, reply.role($0)) : TraceText.plain($0, reply.role($0))) + "\n"
      }.joined()
      // Who reads no more has seen enough.
      guard (try? file.writeAll(Array(text.utf8))) != nil else { return lost }
      if let end, HostClock.monotonic() >= end { break }
      let isBusy = reply.records.count == TraceReply.most
      _ = try? poller.wait(timeout: isBusy ? 0 : Self.pause)
      if !poller[0].isEmpty { break }
    }
    return lost
  }
}

/// An access as text.
enum TraceText {
  static func plain(_ record: TraceReply.Record, _ role: String) -> String {
    let micro = record.time / 1000
    let time = "\(micro / 1_000_000).\(String(1_000_000 + micro % 1_000_000).dropFirst())"
    let cpu = record.cpu == TraceReply.noCPU ? "-" : "\(record.cpu)"
    var line =
      "\(left(time, 12)) \(left(cpu, 3)) \(right(VisibleText.escape(role), 6)) "
      + "\(right("\(record.kind)", 8)) \(record.isRead ? "read " : "write") \(place(record))"
    if let name = RegisterNames.name(record, role) { line += " (\(name))" }
    switch record.operation {
    case .read, .write:
      line += " = 0x" + hex(record.value, digits: min(2 * Int(record.width), 16))
    case .readBlock, .writeBlock: line += " \(record.items) items of \(record.width) bytes"
    }
    if record.kind == .live { line += ", \(microseconds(record.latency))us" }
    return line
  }

  static func json(_ record: TraceReply.Record, _ role: String) -> String {
    let name = RegisterNames.name(record, role).map { StatusText.quoted($0) } ?? "null"
    let cpu = record.cpu == TraceReply.noCPU ? "null" : "\(record.cpu)"
    return "{\"time\":\(record.time),\"cpu\":\(cpu),\"device\":\(StatusText.quoted(role)),"
      + "\"kind\":\"\(record.kind)\",\"direction\":\"\(record.isRead ? "read" : "write")\","
      + "\"space\":\"\(record.space)\",\"address\":\(record.address),\"register\":\(name),"
      + "\"width\":\(record.width),\"items\":\(record.items),\"value\":\(record.value),"
      + "\"latency\":\(record.latency)}"
  }

  private static func place(_ record: TraceReply.Record) -> String {
    switch record.space {
    case .ports: "port 0x" + hex(record.address, digits: 4)
    case .memory: "memory 0x" + hex(record.address, digits: 8)
    case .function: "configuration 0x" + hex(record.address, digits: 2)
    }
  }

  static func microseconds(_ nanoseconds: UInt64) -> String {
    "\(nanoseconds / 1000).\(nanoseconds / 100 % 10)"
  }

  static func hex(_ value: UInt64, digits: Int) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }

  static func left(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  static func right(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }
}
