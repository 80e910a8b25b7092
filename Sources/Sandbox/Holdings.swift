// SPDX-License-Identifier: Apache-2.0

/// Descriptors of one kind that a process holds when it serves, and why.
public struct Holding: Sendable, Equatable {
  /// What a descriptor is, by the words that its link in /proc/PID/fd begins with.
  public enum Kind: String, Sendable, CaseIterable {
    case pipe, socket
    case event = "eventfd"
    /// Memory of its own making or handed over (memfd).
    case memory
    /// /dev/kvm, a virtual machine or a vCPU.
    case kvm
    case null = "/dev/null"
    /// Anything with a path.
    case file
    case other

    /// The kind that a link's text says.
    public init(target: String) {
      switch target {
      case "/dev/null": self = .null
      case "anon_inode:[eventfd]": self = .event
      case _ where target.hasPrefix("pipe:["): self = .pipe
      case _ where target.hasPrefix("socket:["): self = .socket
      case _ where target.hasPrefix("/memfd:"): self = .memory
      case "/dev/kvm": self = .kvm
      case _ where target.hasPrefix("anon_inode:kvm-"): self = .kvm
      case _ where target.hasPrefix("/"): self = .file
      default: self = .other
      }
    }
  }

  public var kind: Kind
  /// How many there may be, besides those that the launcher holds as well.
  public var count: ClosedRange<Int>
  public var reason: String

  init(_ kind: Kind, _ count: ClosedRange<Int>, _ reason: String) {
    self.kind = kind
    self.count = count
    self.reason = reason
  }
}

extension SandboxProfile {
  /// The descriptors of a process's own; those that the launcher opened are compared with its.
  static func holdings(_ name: String) -> [Holding] {
    let ground = [
      Holding(.null, 1...1, "standard input"),
      Holding(.pipe, 2...2, "the log: standard output and error"),
    ]
    let device = ground + [Holding(.socket, 2...2, "the channels to the launcher and the core")]
    switch name {
    case "piix":
      return device + [
        Holding(.event, 7...7, "the watcher, the workers, and four lines with their ends")
      ]
    case "ide":
      return device + [
        Holding(.event, 5...5, "the watcher, the workers, completions, and two lines"),
        Holding(.file, 0...64, "backing files, which the launcher opens on request"),
      ]
    case "serial":
      return [Holding(.null, 1...5, "standard input, and ports that write there")]
        + ground.dropFirst()
        + [
          Holding(
            .socket, 2...10,
            "the channels to the launcher and the core, and of four ports' sockets the peers that "
              + "have left while their input is still read")
        ] + [Holding(.event, 3...4, "the watcher, the workers, and the lines")]
    case "vga":
      return device + [Holding(.event, 2...2, "the watcher and the workers")]
    case "monitor":
      return ground + [
        Holding(.socket, 2...40, "the channels to the launcher and the core, and clients"),
        Holding(.memory, 0...1, "a picture of the screen"),
        Holding(.file, 0...1, "a file that a command writes"),
      ]
    case "core":
      return ground + [
        Holding(.socket, 4...14, "the launcher, the devices, the monitor and its clients"),
        Holding(.event, 0...64, "the interrupt lines that devices claim"),
        Holding(.memory, 0...64, "guest memory, lanes, bounce buffers, video memory, state"),
        Holding(.kvm, 0...66, "/dev/kvm, the virtual machine and its vCPUs"),
      ]
    default: return []
    }
  }
}
