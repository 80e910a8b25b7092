// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockImage
import LinuxSystem

struct Snapshot: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List, take, apply and delete internal snapshots.",
    subcommands: [List.self, Create.self, Apply.self, Delete.self])

  struct List: ImageCommand {
    static let configuration = CommandConfiguration(abstract: "List the snapshots.")
    @OptionGroup var common: CommonOptions
    @Flag(help: "Write JSON.") var json = false
    @Argument(help: "The image.") var image: String

    var operands: [Operand] { [Operand(path: image, access: .read)] }

    func work(_ worker: Worker) throws(ToolError) -> Int32 {
      let facts = try ImageFacts(worker.file(0), .qcow2, worker)
      if json {
        Worker.print(JSON.list(facts.snapshots.map(\.json)).text() + "\n")
      } else if !facts.snapshots.isEmpty {
        Worker.print(
          (["Snapshot list:", QCOW2Snapshot.heading] + facts.snapshots.map(\.line))
            .joined(separator: "\n") + "\n")
      }
      return 0
    }
  }

  struct Create: ImageCommand {
    static let configuration = CommandConfiguration(abstract: "Take a snapshot.")
    @OptionGroup var common: CommonOptions
    @Argument(help: "The snapshot's name.") var name: String
    @Argument(help: "The image.") var image: String

    var operands: [Operand] { [Operand(path: image, access: .write)] }

    func work(_ worker: Worker) throws(ToolError) -> Int32 {
      let now = Clock.now()
      return try change(worker) { (image) throws(BlockImageError) in
        try image.createSnapshot(name, seconds: now.seconds, nanoseconds: now.nanoseconds)
      }
    }
  }

  struct Apply: ImageCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make the disk what it was when a snapshot was taken.")
    @OptionGroup var common: CommonOptions
    @Argument(help: "The snapshot's name or number.") var name: String
    @Argument(help: "The image.") var image: String

    var operands: [Operand] { [Operand(path: image, access: .write)] }

    func work(_ worker: Worker) throws(ToolError) -> Int32 {
      try change(worker) { (image) throws(BlockImageError) in
        try image.applySnapshot(try image.snapshotName(name))
      }
    }
  }

  struct Delete: ImageCommand {
    static let configuration = CommandConfiguration(abstract: "Delete a snapshot.")
    @OptionGroup var common: CommonOptions
    @Argument(help: "The snapshot's name or number.") var name: String
    @Argument(help: "The image.") var image: String

    var operands: [Operand] { [Operand(path: image, access: .write)] }

    func work(_ worker: Worker) throws(ToolError) -> Int32 {
      try change(worker) { (image) throws(BlockImageError) in
        try image.deleteSnapshot(try image.snapshotName(name))
      }
    }
  }
}

extension DiskImage {
  /// What a text picks: the snapshot of that name or, if there is none, of that number.
  mutating func snapshotName(_ text: String) throws(BlockImageError) -> QCOW2SnapshotName {
    try snapshots().contains { $0.name == text } ? .name(text) : .id(text)
  }
}

extension ImageCommand {
  /// Changes the tables of a qcow2 image; no file behind it is read.
  func change(
    _ worker: Worker, _ body: (inout DiskImage) throws(BlockImageError) -> Void
  ) throws(ToolError) -> Int32 {
    let file = worker.file(0)
    guard try worker.format(file, nil) == .qcow2 else {
      throw ToolError("\(file.path): not a qcow2 image")
    }
    var image = try worker.open(file, try worker.standIn(file), isWritable: true)
    do throws(BlockImageError) {
      try body(&image)
      try image.close()
    } catch {
      throw ToolError("\(file.path): \(Worker.words(error))")
    }
    return 0
  }
}
