// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

/// One of the layers that confine a process.
public enum SandboxLayer: UInt8, CaseIterable, Sendable {
  case namespaces = 0
  case emptyRoot = 1
  case capabilities = 2
  case noNewPrivileges = 3
  case hidden = 4
  case deathSignal = 5
  case limits = 6
  case landlock = 7
  case seccomp = 8
  case memoryDenyExecute = 9

  /// The layer in words.
  public var title: String {
    switch self {
    case .namespaces: "namespaces of its own"
    case .emptyRoot: "an empty, read-only root directory"
    case .capabilities: "no capabilities"
    case .noNewPrivileges: "no new privileges"
    case .hidden: "not dumpable"
    case .deathSignal: "ending with the launcher"
    case .limits: "resource limits"
    case .landlock: "Landlock"
    case .seccomp: "the system call filter"
    case .memoryDenyExecute: "no new executable memory"
    }
  }

  /// What an operator can do when the layer can't be had.
  var remedy: String {
    switch self {
    case .namespaces, .emptyRoot:
      "allow user namespaces (user.max_user_namespaces, and AppArmor's restriction on them)"
    case .capabilities: "start vmlaunch where user namespaces are allowed, or as root"
    case .landlock: "boot a kernel with Landlock (CONFIG_SECURITY_LANDLOCK, lsm=landlock,...)"
    case .seccomp: "boot a kernel with CONFIG_SECCOMP_FILTER"
    case .memoryDenyExecute: "boot Linux 6.3 or newer"
    case .noNewPrivileges, .hidden, .deathSignal, .limits:
      "see what forbids prctl or setrlimit here"
    }
  }
}

/// Why a process does not run confined.
public enum SandboxError: Error, Equatable, Sendable, CustomStringConvertible {
  /// A layer could not be had, and the level is strict.
  case layerMissing(SandboxLayer, reason: String, remedy: String)
  /// The process had started threads, which the layers of a thread would not bind.
  case hasThreads(Int)
  /// The view of the kernel on this process could not be read.
  case unreadable(SystemError)

  public var description: String {
    switch self {
    case .layerMissing(let layer, let reason, let remedy):
      "isolation: \(layer.title) could not be had: \(reason); \(remedy), or set isolation.level"
        + " = \"relaxed\""
    case .hasThreads(let count):
      "isolation: the process has \(count) threads; it must enter the sandbox with one"
    case .unreadable(let error): "isolation: \(error)"
    }
  }
}
