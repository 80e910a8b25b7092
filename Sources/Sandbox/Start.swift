// SPDX-License-Identifier: Apache-2.0

public import LinuxSystem

extension Sandbox {
  /// Prepares a process that will enter a sandbox: its namespaces and its environment.
  ///
  /// With a relaxed level, and where the namespaces can't be had, it starts with fewer; the
  /// process's own report says which are missing.
  ///
  /// - Throws: what failed at the last attempt.
  public static func prepare(
    executable: String, arguments: [String], descriptors: [(Descriptor, as: Int32)],
    profile: SandboxProfile, level: IsolationLevel, identity: SpawnIdentity
  ) throws(SystemError) -> PreparedProcess {
    let environment = try environment()
    var choices = [profile.namespaces]
    if level == .relaxed { choices += [profile.namespaces.subtracting(.user), []] }
    var failure = SystemError("clone3", 0)
    for choice in choices {
      do {
        return try Spawn.prepare(
          executable: executable, arguments: arguments, environment: environment,
          descriptors: descriptors, namespaces: choice, identity: identity)
      } catch {
        failure = error
      }
    }
    throw failure
  }
}
