// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import MachineFile

/// The socket that gdb connects to, which the human monitor's `gdbserver` makes and takes away.
extension Supervisor {
  /// Does what vmmonitor asks; a new process of it is given the socket that there is then.
  func answerDebuggerSocket(_ request: DebuggerSocketRequest, _ header: Header, _ child: Child) {
    do throws(Refusal) {
      let socket = try changeDebuggerSocket(request)
      send(
        DebuggerSocketReply(path: socket?.path ?? ""), to: child, header, socket?.socket.descriptor)
    } catch {
      refuse(error, to: child, header)
    }
  }

  private func changeDebuggerSocket(
    _ request: DebuggerSocketRequest
  ) throws(Refusal) -> ControlSocket? {
    let old = resources.debugger
    guard request.isWanted else {
      old?.remove()
      resources.debugger = nil
      return nil
    }
    let path = try debuggerPath(request.path)
    if let old, old.path == path { return old }
    do throws(LaunchError) {
      resources.debugger = try ControlSocket(
        path, machine: machine.name, isOwnFolder: false, isStream: true, janitor: janitor)
    } catch {
      throw Refusal(VisibleText.escape(error.message))
    }
    old?.remove()
    say("gdb can connect at \(path)", .notice)
    return resources.debugger
  }

  /// Where the machine file has it, or else beside the control socket; what the operator names
  /// has to be that, or to lie in the machine file's own folder for it.
  private func debuggerPath(_ path: String) throws(Refusal) -> String {
    let control = machine.controlPath(inRuntimeFolder: RuntimeFolder.path)
    guard case .unix(let usual) = machine.monitor.gdb else {
      let usual = (control.hasSuffix(".sock") ? String(control.dropLast(5)) : control) + ".gdb"
      guard path.isEmpty || path == usual else {
        throw Refusal(
          "\(VisibleText.escape(path)) is not \(usual); other places want a monitor.gdb in the "
            + "machine file")
      }
      return usual
    }
    guard !path.isEmpty, path != usual else { return usual }
    let folder = BackingFiles.folder(of: usual)
    return "\(folder)/\(try Self.name(path, directlyIn: folder, key: "monitor.gdb"))"
  }
}
