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
    // Before the probe of KVM, whose thread would make an arena of its own: it would be used again,
    // and grow by mprotect, which the filter does not allow.
    Allocator.shareOneArena()
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
    let kvm = settings.hasKVM ? try next("/dev/kvm") : nil
    let firmware = try next("firmware")
    let listener = settings.hasControl ? PacketSocket(try next("control socket")) : nil
    var pages: [Descriptor] = []
    var channels: [Descriptor] = []
    for device in settings.devices {
      pages.append(try next("state page of \(device.role)"))
      channels.append(try next("channel of \(device.role)"))
    }
    let choice = try AcceleratorChoice.make(settings, kvm: kvm)
    if settings.accelerator == .auto { CoreLog.line("accelerator \(choice.text)") }
    let machine = try Machine(settings, choice, firmware: firmware, statePages: pages)
    let profile = choice.isSoft ? SandboxProfile.softCore : .core
    Lockdown.enter(profile, settings.common, launcher: launcher) { () throws(SystemError) in
      try machine.startThreads()
    }
    for (device, channel) in zip(settings.devices, channels) {
      machine.attach(device.role, Channel(PacketSocket(channel)))
    }
    return MachineControl(machine, launcher: launcher, listener: listener)
  }
}
