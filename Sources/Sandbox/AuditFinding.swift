// SPDX-License-Identifier: Apache-2.0

/// What the audit says of one layer of one process.
public struct AuditFinding: Sendable, Equatable {
  /// The layer, in one word.
  public var layer: String
  /// What the kernel says.
  public var value: String
  /// How that differs from the profile; `nil` when it does not.
  public var difference: String?

  public init(_ layer: String, _ value: String, _ difference: String? = nil) {
    self.layer = layer
    self.value = value
    self.difference = difference
  }

  /// A finding that holds or differs.
  static func check(_ layer: String, _ value: String, _ holds: Bool, _ difference: String)
    -> AuditFinding
  {
    AuditFinding(layer, value, holds ? nil : difference)
  }
}

/// The audit of one process.
public struct AuditedProcess: Sendable, Equatable {
  /// Its executable's name.
  public var name: String
  public var pid: Int32
  public var findings: [AuditFinding]

  public init(name: String, pid: Int32, findings: [AuditFinding]) {
    self.name = name
    self.pid = pid
    self.findings = findings
  }

  /// The layers that differ.
  public var differences: [AuditFinding] { findings.filter { $0.difference != nil } }
}
