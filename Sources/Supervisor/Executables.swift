// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem
public import MachineFile

/// Where the other executables are: beside the launcher's own, or in ../libexec/bulkhead.
public struct Executables: Sendable {
  private let folders: [String]

  /// Looks in the folders around this process's executable.
  public init() throws(LaunchError) {
    do throws(SystemError) {
      let own = try Files.open("/proc/self", [.readOnly, .folder]).link("exe")
      let folder = BackingFiles.folder(of: own)
      folders = [folder, BackingFiles.folder(of: folder) + "/libexec/bulkhead"]
    } catch {
      throw LaunchError("cannot tell where vmlaunch is: \(error)")
    }
  }

  /// Returns the path of an executable.
  public func path(_ name: String) throws(LaunchError) -> String {
    for folder in folders where Files.isExecutable("\(folder)/\(name)") {
      return "\(folder)/\(name)"
    }
    throw LaunchError(
      "\(name) is not installed: looked in \(folders.joined(separator: " and ")); "
        + "build all of Bulkhead with: swift build -c release")
  }
}

extension Executables {
  /// Checks that every executable that a machine needs is there.
  public func checkAll(of machine: Machine) throws(LaunchError) {
    for role in Role.all(of: machine) { _ = try path(role.executable) }
  }
}
