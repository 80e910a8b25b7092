// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import LinuxSystem
public import TestSupport
public import Testing

extension Vector: CustomTestStringConvertible {
  public var testDescription: String { name }
}

/// Every type that is in a message, by its name in the table.
let wireTypes: [String: any WireCodable.Type] = [
  "Header": Header.self, "Empty": Empty.self, "Refusal": Refusal.self, "Hello": Hello.self,
  "PortClaim": PortClaim.self, "MemoryClaim": MemoryClaim.self, "BARClaim": BARClaim.self,
  "FunctionClaim": FunctionClaim.self, "RegisterClaim": RegisterClaim.self,
  "LineClaim": LineClaim.self, "BackingClaim": BackingClaim.self,
  "DescriptorClaim": DescriptorClaim.self, "Claims": Claims.self, "Grant": Grant.self,
  "DMARequest": DMARequest.self, "DMAReply": DMAReply.self, "MoveRegion": MoveRegion.self,
  "WindowMapping": WindowMapping.self, "WindowMapping.Guard": WindowMapping.Guard.self,
  "PIRQRoutes": PIRQRoutes.self, "PowerRequest": PowerRequest.self,
  "ScreendumpRequest": ScreendumpRequest.self, "ScreendumpReply": ScreendumpReply.self,
  "MediumRequest": MediumRequest.self, "HoldRequest": HoldRequest.self,
  "MediumMessage": MediumMessage.self, "ConnectionMessage": ConnectionMessage.self,
  "ResizeRequest": ResizeRequest.self, "BreakRequest": BreakRequest.self,
  "DebuggerSocketRequest": DebuggerSocketRequest.self,
  "DebuggerSocketReply": DebuggerSocketReply.self,
  "PointerRequest": PointerRequest.self, "DrivesReply": DrivesReply.self,
  "DrivesReply.Drive": DrivesReply.Drive.self, "NoticeMessage": NoticeMessage.self,
  "DriveSnapshotRequest": DriveSnapshotRequest.self,
  "DriveSnapshotReply": DriveSnapshotReply.self,
  "DriveSnapshotReply.Entry": DriveSnapshotReply.Entry.self,
  "StateFileRequest": StateFileRequest.self, "StateFileReply": StateFileReply.self,
  "StateFileReply.Entry": StateFileReply.Entry.self, "OverlayRequest": OverlayRequest.self,
  "OverlayReply": OverlayReply.self,
  "DiscRequest": DiscRequest.self, "DiscReply": DiscReply.self,
  "InputRequest": InputRequest.self,
  "InputRequest.Key": InputRequest.Key.self,
  "CommonSettings": CommonSettings.self, "CoreSettings": CoreSettings.self,
  "CoreSettings.Device": CoreSettings.Device.self, "PIIXSettings": PIIXSettings.self,
  "IDESettings": IDESettings.self, "IDESettings.Drive": IDESettings.Drive.self,
  "SerialSettings": SerialSettings.self, "SerialSettings.Port": SerialSettings.Port.self,
  "VGASettings": VGASettings.self, "MonitorSettings": MonitorSettings.self,
  "MonitorSettings.Drive": MonitorSettings.Drive.self,
  "MonitorSettings.Port": MonitorSettings.Port.self, "OutputRequest": OutputRequest.self,
  "ThreadsReply": ThreadsReply.self, "ThreadsReply.Entry": ThreadsReply.Entry.self,
  "ProcessesReply": ProcessesReply.self, "ProcessesReply.Entry": ProcessesReply.Entry.self,
  "LogLevelMessage": LogLevelMessage.self, "IsolationMessage": IsolationMessage.self,
  "AttachMessage": AttachMessage.self, "FaultMessage": FaultMessage.self,
  "EndedMessage": EndedMessage.self, "BackingRequest": BackingRequest.self,
]

/// Takes a whole message apart as a receiver does: the header, then the payload.
func decodeMessage(_ bytes: [UInt8], as type: String) throws -> any WireCodable {
  let (ours, theirs) = try PacketSocket.pair()
  try theirs.send(bytes)
  let packet: Packet?
  do {
    packet = try Channel(ours).receive()
  } catch {
    guard case .broken(let problem) = error else { throw error }
    throw problem
  }
  guard let packet, let wire = wireTypes[type] else { throw Failure(reason: "no type \(type)") }
  return try wire.init(wireBytes: packet.payload)
}
