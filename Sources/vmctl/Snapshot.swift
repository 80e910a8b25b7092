// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceProtocol
import LinuxSystem
import Monitor

struct Snapshot: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Save, load, delete and list snapshots of a machine.",
    discussion: """
      A snapshot is the machine's memory, processors and devices, in a file in the folder that the \
      machine file names with monitor.snapshots, and an internal snapshot in the qcow2 image of \
      every disk that is written. The machine is held meanwhile.
      """, subcommands: [List.self, Create.self, Apply.self, Delete.self])

  /// How long a snapshot may take, in nanoseconds.
  private static let patience: UInt64 = 3_600_000_000_000

  private static func ask(
    _ machine: MachineName, _ request: SnapshotRequest
  ) throws(ControlClient.Failure) -> SnapshotReply {
    try machine.connect().ask(.snapshot, request, patience: patience)
  }

  /// Does something with one snapshot; with `json` an object says that it is done.
  private static func change(
    _ action: SnapshotRequest.Action, _ machine: MachineName, _ tag: String, json: Bool
  ) {
    VMCtl.attempt { () throws(ControlClient.Failure) in
      _ = try ask(machine, SnapshotRequest(action, tag: tag))
      if json { print("{\"tag\":\(StatusText.quoted(tag))}") }
    }
  }

  struct Create: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Save a snapshot.")
    @OptionGroup var machine: MachineName
    @Argument(help: "Its name.") var tag: String
    @Flag(help: "As a JSON object.") var json = false

    func run() { Snapshot.change(.save, machine, tag, json: json) }
  }

  struct Apply: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make the machine what it was when a snapshot was saved.",
      discussion: "What its guest has done since then, also to its disks, is lost.")
    @OptionGroup var machine: MachineName
    @Argument(help: "The snapshot's name.") var tag: String
    @Flag(help: "As a JSON object.") var json = false

    func run() { Snapshot.change(.load, machine, tag, json: json) }
  }

  struct Delete: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Delete a snapshot.")
    @OptionGroup var machine: MachineName
    @Argument(help: "The snapshot's name.") var tag: String
    @Flag(help: "As a JSON object.") var json = false

    func run() { Snapshot.change(.delete, machine, tag, json: json) }
  }

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the snapshots.")
    @OptionGroup var machine: MachineName
    @Flag(help: "As a JSON array.") var json = false

    func run() {
      VMCtl.attempt { () throws(ControlClient.Failure) in
        let entries = try Snapshot.ask(machine, SnapshotRequest(.list)).entries
        guard json else {
          for entry in entries { print(Self.line(entry)) }
          return
        }
        let objects = entries.map { entry in
          "{\"tag\":\(StatusText.quoted(entry.tag)),\"state\":\(entry.byteCount),"
            + "\"seconds\":\(entry.seconds),\"clock\":\(entry.clock),"
            + "\"drives\":[\(Self.drives(entry).map(StatusText.quoted).joined(separator: ","))]}"
        }
        print("[\(objects.joined(separator: ","))]")
      }
    }

    private static func drives(_ entry: SnapshotReply.Entry) -> [String] {
      DriveName.slots.enumerated().filter { entry.drives >> UInt8($0.offset) & 1 == 1 }
        .map(\.element)
    }

    private static func line(_ entry: SnapshotReply.Entry) -> String {
      let state =
        entry.byteCount == 0
        ? "no state" : "state \((entry.byteCount + (1 << 20) - 1) >> 20)MiB"
      let drives = drives(entry)
      return "\(VisibleText.escape(entry.tag))  \(state), "
        + (drives.isEmpty ? "no disk" : drives.joined(separator: " "))
    }
  }
}
