// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

extension Sandbox {
  /// Clones a process that will enter a sandbox; it waits to be released.
  ///
  /// Several that are prepared, then released, then confirmed make their namespaces in
  /// parallel. All namespaces of the profile are needed;
  /// `start` does with fewer where the level allows it.
  public static func prepare(
    executable: String, arguments: [String], descriptors: [(Descriptor, as: Int32)],
    profile: SandboxProfile, identity: SpawnIdentity
  ) throws(SystemError) -> PreparedProcess {
    try Spawn.prepare(
      executable: executable, arguments: arguments, environment: try environment(),
      descriptors: descriptors, namespaces: profile.namespaces, identity: identity)
  }

  /// Starts a process that will enter a sandbox: its namespaces and its environment.
  ///
  /// With a relaxed level, and where the namespaces can't be had, it starts with fewer; the
  /// process's own report says which are missing.
  ///
  /// - Throws: what failed, at the first attempt.
  public static func start(
    executable: String, arguments: [String], descriptors: [(Descriptor, as: Int32)],
    profile: SandboxProfile, level: IsolationLevel, identity: SpawnIdentity
  ) throws(SystemError) -> ChildProcess {
    let environment = try environment()
    let choices: [Namespaces] =
      level == .strict ? [] : [profile.namespaces.subtracting(.user), []]
    do {
      return try prepare(
        executable: executable, arguments: arguments, descriptors: descriptors,
        profile: profile, identity: identity
      ).confirm()
    } catch {
      for choice in choices {
        let child = try? Spawn.start(
          executable: executable, arguments: arguments, environment: environment,
          descriptors: descriptors, namespaces: choice, identity: identity)
        if let child { return child }
      }
      throw error
    }
  }
}
