// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Glibc

/// Kinds of namespaces of Linux (namespaces(7)).
public struct Namespaces: OptionSet, Sendable, Hashable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let user = Namespaces(rawValue: 1 << 0)
  public static let mount = Namespaces(rawValue: 1 << 1)
  public static let process = Namespaces(rawValue: 1 << 2)
  public static let network = Namespaces(rawValue: 1 << 3)
  public static let ipc = Namespaces(rawValue: 1 << 4)
  public static let hostName = Namespaces(rawValue: 1 << 5)
  public static let cgroup = Namespaces(rawValue: 1 << 6)

  /// All seven.
  public static let all = Namespaces(rawValue: 0x7F)

  /// The seven with the names of their files in /proc/PID/ns, by bit number.
  public static let fileNames = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]

  private static let flags = [
    BH_CLONE_NEWUSER, BH_CLONE_NEWNS, BH_CLONE_NEWPID, BH_CLONE_NEWNET, BH_CLONE_NEWIPC,
    BH_CLONE_NEWUTS, BH_CLONE_NEWCGROUP,
  ]

  /// The set as flags of clone(2).
  var cloneFlags: UInt64 {
    var result: UInt64 = 0
    for (bit, flag) in Self.flags.enumerated() where rawValue >> UInt8(bit) & 1 != 0 {
      result |= UInt64(flag)
    }
    return result
  }
}

/// Who a child process is, outside its user namespace.
///
/// Inside it is always user and group 0, which means nothing once the capabilities are gone.
public enum SpawnIdentity: Sendable, Equatable {
  /// The caller's own ids; needs no privilege. Supplementary groups stay.
  case own
  /// A user and a group of the host that belong to this machine; needs privilege.
  case host(user: UInt32, group: UInt32)

  /// The identity that the caller may give to the process with this number.
  ///
  /// A privileged caller gives every process an id of its own, counted from `base`.
  public static func automatic(base: UInt32, number: UInt32) -> SpawnIdentity {
    geteuid() == 0 ? .host(user: base &+ number, group: base &+ number) : .own
  }
}

/// A child that is cloned and mapped but has not become its executable yet.
public struct PreparedProcess: ~Copyable {
  let process: ChildProcess
  let gate: Descriptor
  let news: Descriptor
  let path: String
  var isReleased = false

  init(_ process: ChildProcess, gate: Descriptor, news: Descriptor, path: String) {
    self.process = process
    self.gate = gate
    self.news = news
    self.path = path
  }

  /// The process id in the caller's pid namespace.
  public var id: Int32 { process.pid }

  /// Lets the child go on; several released one after the other start in parallel.
  public mutating func release() throws(SystemError) {
    guard !isReleased else { return }
    isReleased = true
    try gate.writeAll([1])
  }

  /// Lets the child go on and does not wait until it has become its executable.
  ///
  /// If it cannot, it ends with code 126 or 127. For a child that outlives its parent: another
  /// one would take the closing of the pipes for the parent's end.
  public consuming func detach() throws(SystemError) -> ChildProcess {
    try release()
    return process
  }

  /// Waits until the child has become its executable.
  ///
  /// - Throws: the call that failed in the child, with its error number; the child is then gone.
  public consuming func confirm() throws(SystemError) -> ChildProcess {
    try release()
    var bytes: [UInt8] = []
    while bytes.count < 8 {
      do {
        let more = try news.read(8 - bytes.count)
        if more.isEmpty { break }
        bytes += more
      } catch  where error.isInterrupted {
        continue
      }
    }
    guard !bytes.isEmpty else { return process }
    _ = try? process.wait()
    guard bytes.count == 8 else { throw SystemError("start \(path)", EPROTO) }
    let stage = Int(bytes[0])
    let number = (4..<8).reduce(Int32(0)) { $0 | Int32(bytes[$1]) << Int32(8 * ($1 - 4)) }
    throw SystemError("\(Self.stage(stage)) \(path)", number)
  }

  private static func stage(_ number: Int) -> String {
    switch number {
    case Int(BH_SPAWN_RELEASE): "wait to start"
    case Int(BH_SPAWN_UNSHARE): "make namespaces for"
    case Int(BH_SPAWN_IDENTITY): "change the user for"
    case Int(BH_SPAWN_DESCRIPTORS): "hand descriptors to"
    case Int(BH_SPAWN_DEATH_SIGNAL): "tie to the parent"
    default: "execute"
    }
  }
}

/// Starting executables in namespaces of their own.
public enum Spawn {
  /// Starts an executable and waits until it runs.
  ///
  /// The child is killed when the thread that called this ends, not only the process: start
  /// children from a thread that stays. It holds exactly the listed descriptors, has every
  /// signal at its default and unblocked, and leads a session of its own.
  ///
  /// - Throws: what failed, in the parent or in the child, by the call's name.
  public static func start(
    executable: String, arguments: [String], environment: [String],
    descriptors: [(Descriptor, as: Int32)], namespaces: Namespaces, identity: SpawnIdentity
  ) throws(SystemError) -> ChildProcess {
    try prepare(
      executable: executable, arguments: arguments, environment: environment,
      descriptors: descriptors, namespaces: namespaces, identity: identity
    ).confirm()
  }

  /// Clones the child and writes its id maps; it then waits for ``PreparedProcess/release()``.
  ///
  /// With `outlivesParent` it is not killed when the calling thread ends; it still ends with the
  /// parent before it is released.
  public static func prepare(
    executable: String, arguments: [String], environment: [String],
    descriptors: [(Descriptor, as: Int32)], namespaces: Namespaces, identity: SpawnIdentity,
    outlivesParent: Bool = false
  ) throws(SystemError) -> PreparedProcess {
    let file = try Descriptor.open(executable, O_PATH_VALUE)
    let sources = descriptors.map(\.0.raw)
    let targets = descriptors.map(\.as)
    let early: Namespaces = [.user, .process]
    let hasUser = namespaces.contains(.user)
    let argumentStrings = CStrings(arguments)
    let environmentStrings = CStrings(environment)
    var pidfd: Int32 = -1
    var gate: Int32 = -1
    var news: Int32 = -1
    // SAFETY: every pointer in the request stays valid for the call; the child reads its own
    // copy of this memory.
    let pid = unsafe sources.withUnsafeBufferPointer { sources in
      unsafe targets.withUnsafeBufferPointer { targets in
        unsafe argumentStrings.withPointers { argumentPointers in
          unsafe environmentStrings.withPointers { environmentPointers in
            var request = unsafe bh_spawn_request(
              executable: file.raw, arguments: argumentPointers, environment: environmentPointers,
              sources: sources.baseAddress, targets: targets.baseAddress, count: sources.count,
              clone_flags: namespaces.intersection(early).cloneFlags,
              unshare_flags: namespaces.subtracting(early).cloneFlags,
              becomes_zero: hasUser ? 1 : 0, drops_groups: hasUser && identity != .own ? 1 : 0,
              outlives_parent: outlivesParent ? 1 : 0)
            return unsafe bh_spawn(&request, &pidfd, &gate, &news)
          }
        }
      }
    }
    _ = try SystemError.check("clone3 for \(executable)", pid)
    let process = ChildProcess(pid: pid, descriptor: Descriptor(owning: pidfd))
    let prepared = PreparedProcess(
      process, gate: Descriptor(owning: gate), news: Descriptor(owning: news), path: executable)
    if hasUser {
      do {
        try map(pid, identity)
      } catch {
        // It has run nothing, and goes before anybody sees it.
        try? process.kill()
        _ = try? process.wait()
        throw error
      }
    }
    return prepared
  }

  private static let O_PATH_VALUE: Int32 = 0o10000000

  private static func map(_ pid: Int32, _ identity: SpawnIdentity) throws(SystemError) {
    let ids: (user: UInt32, group: UInt32)
    switch identity {
    case .own:
      ids = (geteuid(), getegid())
      try write("deny", to: "/proc/\(pid)/setgroups")
    case .host(let user, let group):
      ids = (user, group)
    }
    try write("0 \(ids.user) 1\n", to: "/proc/\(pid)/uid_map")
    try write("0 \(ids.group) 1\n", to: "/proc/\(pid)/gid_map")
  }

  private static func write(_ text: String, to path: String) throws(SystemError) {
    let file = try Descriptor.open(path, O_WRONLY)
    do {
      _ = try file.write(Array(text.utf8))
    } catch {
      throw SystemError("write \(path)", error.number)
    }
  }
}

/// A list of C strings that ends with NULL, as execve wants it.
@safe
final class CStrings {
  private var pointers: [UnsafeMutablePointer<CChar>?]

  init(_ strings: [String]) {
    // SAFETY: strdup's copies belong to this object until its end. Without memory one comes
    // back as NULL and ends the list early.
    unsafe pointers = strings.map { unsafe strdup($0) } + [nil]
  }

  deinit {
    // SAFETY: each was made by strdup and is freed once; free(NULL) does nothing.
    unsafe pointers.forEach { unsafe free($0) }
  }

  /// Calls `body` with the list; the pointers are valid during the call.
  func withPointers<R>(_ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R) -> R {
    // SAFETY: the array has at least the closing NULL, so its base address exists.
    unsafe pointers.withUnsafeBufferPointer { buffer in
      guard let start = buffer.baseAddress else { preconditionFailure("an empty C list") }
      return unsafe body(start)
    }
  }
}
