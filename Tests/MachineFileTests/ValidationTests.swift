// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MachineFile

/// Files that exist only in a test.
struct FakeFiles: FileInspector {
  var files: [String: FileStatus] = [:]
  var locked: Set<String> = []

  func status(of path: String) -> FileStatus { files[path] ?? FileStatus(kind: .missing) }

  func isImageInUse(_ path: String, forWriting: Bool) -> Bool {
    forWriting && locked.contains(path)
  }

  /// A folder `/d` with the files that the good machine of these tests needs.
  static let good = FakeFiles(files: [
    "/d": FileStatus(kind: .folder, inode: 1),
    "/d/a": FileStatus(kind: .regular, byteCount: 512, inode: 2),
    "/d/b": FileStatus(kind: .regular, byteCount: 512, inode: 3),
    "/d/log": FileStatus(kind: .regular, inode: 4),
  ])
}

@Suite("Checks against the host")
struct ValidationTests {
  static let text = """
    name = "a"
    machine = { cpus = 4, memory = "2GiB", accelerator = "kvm" }
    [[drive]]
    slot = "ide0.0"
    image = "a"
    format = "qcow2"
    backing = ["b"]
    [[drive]]
    slot = "ide0.1"
    image = "b"
    format = "raw"
    readonly = true
    [debug]
    console = "file:log"
    [monitor]
    control = "unix:control"
    """

  static let host = HostFacts(
    kvm: .usable, maximumCPUs: 4, memoryByteCount: 2 << 30, seaBIOS: "/bios", vgaBIOS: "/vga")

  /// Returns the error's text, or a note that there was none.
  static func error(
    _ text: String = text, host: HostFacts = host, files: FakeFiles = .good
  ) throws -> String {
    let parsed = try ParsedMachine.parse(text: text, fileName: "/d/m.toml")
    do {
      try parsed.validate(against: host, files: files)
      return "no error"
    } catch {
      return error.description
    }
  }

  @Test("a machine that fits is accepted")
  func good() throws {
    #expect(try Self.error() == "no error")
  }

  @Test("a model of the software CPU is refused where KVM may run the guest")
  func softwareModel() throws {
    let text = Self.text.replacing(
      "accelerator = \"kvm\"", with: "accelerator = \"kvm\", cpu-model = \"base\"")
    #expect(
      try Self.error(text)
        == "/d/m.toml:2:73: machine.cpu-model: this is a model of the software CPU; accepted: "
        + "host, or accelerator = \"soft\" with it")
    #expect(try Self.error(text.replacing("\"kvm\"", with: "\"soft\"")) == "no error")
  }

  struct HostCase: Sendable, CustomTestStringConvertible {
    var change: @Sendable (inout HostFacts) -> Void
    var error: String
    var testDescription: String { error }
  }

  @Test("what the host does not have", arguments: hostCases)
  func host(bad: HostCase) throws {
    var host = Self.host
    bad.change(&host)

    #expect(try Self.error(host: host) == "/d/m.toml:" + bad.error)
  }

  static let hostCases = [
    HostCase(
      change: { $0.maximumCPUs = 2 },
      error: "2:20: machine.cpus: 4 virtual CPUs, but KVM here gives a machine at most 2; "
        + "accepted: 1 to 2"),
    HostCase(
      change: { $0.memoryByteCount = 2 << 30 - 1 },
      error: "2:32: machine.memory: 2GiB, but this host has 2047MiB; accepted: 4MiB to 2047MiB"),
    HostCase(
      change: { $0.kvm = .missing },
      error: "2:54: machine.accelerator: there is no /dev/kvm; load the kernel's kvm module or "
        + "allow nested virtualisation; or take another accelerator: auto, soft"),
    HostCase(
      change: { $0.kvm = .unusable("permission denied") },
      error: "2:54: machine.accelerator: /dev/kvm cannot be used: permission denied; join the "
        + "group kvm, or see the kernel's log; or take another accelerator: auto, soft"),
    HostCase(
      change: { $0.seaBIOS = nil },
      error: "2:11: machine.firmware: SeaBIOS is not installed; apt-get install seabios, or "
        + "name the path of an image"),
    HostCase(
      change: { $0.vgaBIOS = nil },
      error: "2:11: machine.vga-bios: SeaBIOS's VGA BIOS is not installed; apt-get install "
        + "seabios, or name the path of an image"),
  ]

  struct FileCase: Sendable, CustomTestStringConvertible {
    var change: @Sendable (inout FakeFiles) -> Void
    var error: String
    var testDescription: String { error }
  }

  @Test("what is wrong with files", arguments: fileCases)
  func files(bad: FileCase) throws {
    var files = FakeFiles.good
    bad.change(&files)

    #expect(try Self.error(files: files) == "/d/m.toml:" + bad.error)
  }

  static let fileCases = [
    FileCase(
      change: { $0.files["/d/a"] = nil },
      error: "5:9: drive[0].image: \"/d/a\" does not exist; accepted: the path of a qcow2 image"),
    FileCase(
      change: { $0.files["/d/a"]?.kind = .folder },
      error: "5:9: drive[0].image: \"/d/a\" is a folder; accepted: the path of a qcow2 image"),
    FileCase(
      change: { $0.files["/d/a"]?.isReadable = false },
      error: "5:9: drive[0].image: \"/d/a\" may not be read; accepted: the path of a qcow2 image"),
    FileCase(
      change: { $0.files["/d/a"]?.isWritable = false },
      error: "5:9: drive[0].image: \"/d/a\" may not be written; accepted: a writable image, or "
        + "readonly = true"),
    FileCase(
      change: { $0.files["/d/b"]?.byteCount = 0 },
      error: "10:9: drive[1].image: \"/d/b\" is empty; accepted: the path of a raw image"),
    FileCase(
      change: { $0.files["/d/b"]?.inode = 2 },
      error: "10:9: drive[1].image: \"/d/b\" is the same file as drive[0].image; accepted: an "
        + "image of its own, or readonly = true in both"),
    FileCase(
      change: { $0.locked = ["/d/a", "/d/b"] },
      error: "5:9: drive[0].image: \"/d/a\" is in use by another process; accepted: an image "
        + "that nobody else has open for writing"),
    FileCase(
      change: { $0.files["/d/log"]?.inode = 3 },
      error: "14:11: debug.console: \"/d/log\" is the same file as drive[1].image; accepted: a "
        + "file of its own"),
    FileCase(
      change: { $0.files["/d/log"]?.isWritable = false },
      error: "14:11: debug.console: \"/d/log\" may not be written; accepted: a writable file"),
    FileCase(
      change: { $0.files["/d/log"]?.kind = .socket },
      error: "14:11: debug.console: \"/d/log\" is a socket; accepted: a file"),
    FileCase(
      change: {
        $0.files["/d/log"] = nil
        $0.files["/d"]?.isWritable = false
      },
      error: "14:11: debug.console: the folder \"/d\" may not be written; accepted: a writable "
        + "folder"),
    FileCase(
      change: { $0.files["/d/control"] = FileStatus(kind: .regular) },
      error: "16:11: monitor.control: \"/d/control\" is a file; accepted: a path where a socket "
        + "can be made"),
    FileCase(
      change: { $0.files["/d"] = nil },
      error: "16:11: monitor.control: the folder \"/d\" does not exist; accepted: a writable "
        + "folder"),
  ]

  @Test("a backing file in the list has to exist")
  func backing() throws {
    let text = Self.text.replacing("[\"b\"]", with: "[\"b\", \"c\"]")

    #expect(
      try Self.error(text)
        == "/d/m.toml:7:17: drive[0].backing[1]: \"/d/c\" does not exist; accepted: the path of "
        + "an image")
  }

  @Test("firmware from a path has to exist, and seabios is then not needed")
  func firmware() throws {
    let text = Self.text.replacing("{ cpus", with: "{ firmware = \"seabois\", cpus")
    var host = Self.host
    host.seaBIOS = nil
    var files = FakeFiles.good
    files.files["/d/seabois"] = FileStatus(kind: .regular, byteCount: 1, inode: 9)

    #expect(
      try Self.error(text, host: host)
        == "/d/m.toml:2:24: machine.firmware: \"/d/seabois\" does not exist; accepted: seabios "
        + "or a file")
    #expect(try Self.error(text, host: host, files: files) == "no error")
  }

  @Test("a host error about an absent key stands at its table")
  func absentKey() throws {
    let parsed = try ParsedMachine.parse(
      text: "name = \"a\"\n\n[debug]\n", fileName: "m.toml")

    #expect(
      parsed.error("debug.console", "cannot be had", remedy: "try later").description
        == "m.toml:3:2: debug.console: cannot be had; try later")
    #expect(parsed.error("boot.order", "is odd").description == "m.toml:1:1: boot.order: is odd")
  }
}
