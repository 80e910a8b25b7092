// SPDX-License-Identifier: Apache-2.0

internal import DeviceHost
internal import DeviceProtocol
internal import LinuxSystem
internal import MachineCore
internal import Sandbox

/// The core of a machine: guest memory, the vCPUs, the buses.
@main
struct Main {
  static func main() {
    _ = Processors.online
    let launcher = Channel(
      PacketSocket(Descriptor(owning: DeviceProcess.launcherDescriptor)))
    do {
      try prepare(launcher).run()
    } catch {
      DeviceProcess.end("\(error)")
    }
  }

  /// Makes the machine that the launcher's first message describes; what came along and is the
  /// machine's is not kept here.
  private static func prepare(_ launcher: Channel) throws -> MachineControl {
    let packet: Packet
    do throws(ChannelError) {
      packet = try launcher.receive(timeout: 10_000_000_000)
    } catch {
      throw ProtocolError(
        "no setup from the launcher (vmlaunch starts this program, nobody else): \(error)")
    }
    guard packet.header.request == LaunchRequest.setup.rawValue else {
      throw ProtocolError("the first message is no setup")
    }
    let settings: CoreSettings = try packet.decode()
    var rest = packet.descriptors[...]
    func next(_ what: String) throws(ProtocolError) -> Descriptor {
      guard let descriptor = rest.popFirst() else { throw ProtocolError("no \(what)") }
      return descriptor
    }
    let kvm = try next("/dev/kvm")
    let firmware = try next("firmware")
    let listener = settings.hasControl ? PacketSocket(try next("control socket")) : nil
    var pages: [Descriptor] = []
    var channels: [Descriptor] = []
    for device in settings.devices {
      pages.append(try next("state page of \(device.role)"))
      channels.append(try next("channel of \(device.role)"))
    }
    let machine = try Machine(settings, kvm: kvm, firmware: firmware, statePages: pages)
    Lockdown.enter(.core, settings.common, launcher: launcher) { () throws(SystemError) in
      try machine.startThreads()
    }
    for (device, channel) in zip(settings.devices, channels) {
      machine.attach(device.role, Channel(PacketSocket(channel)))
    }
    return MachineControl(machine, launcher: launcher, listener: listener)
  }
}
