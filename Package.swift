// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

let settings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableExperimentalFeature("Lifetimes"),
]

/// A library of ours; modules depend downwards only (ImportRulesTests checks it).
func library(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tool(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
  .testTarget(
    name: name, dependencies: dependencies, exclude: exclude, swiftSettings: settings)
}

let argumentParser = Target.Dependency.product(
  name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
  name: "bulkhead",
  products: [
    .executable(name: "vmlaunch", targets: ["vmlaunch"]),
    .executable(name: "vmcore", targets: ["vmcore"]),
    .executable(name: "vmdev-piix", targets: ["vmdev-piix"]),
    .executable(name: "vmdev-ide", targets: ["vmdev-ide"]),
    .executable(name: "vmdev-serial", targets: ["vmdev-serial"]),
    .executable(name: "vmdev-vga", targets: ["vmdev-vga"]),
    .executable(name: "vmmonitor", targets: ["vmmonitor"]),
    .executable(name: "vmctl", targets: ["vmctl"]),
    .executable(name: "vmimage", targets: ["vmimage"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
  ],
  targets: [
    // Ground.
    .target(name: "CLinux"),
    .systemLibrary(name: "CCapNG", pkgConfig: "libcap-ng", providers: [.apt(["libcap-ng-dev"])]),
    .systemLibrary(
      name: "CSeccomp", pkgConfig: "libseccomp", providers: [.apt(["libseccomp-dev"])]),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
    .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    library("LinuxSystem", ["CLinux", "CCapNG", "CSeccomp"]),
    library("DeviceModel"),

    // Protocol.
    library("DeviceProtocol", ["DeviceModel", "LinuxSystem"]),

    // Blocks and pictures.
    library("BlockImage"),
    library("Picture", ["CZlib"]),
    library("Compression", ["CZlib", "CZstd"]),
    library("DiskEncryption", ["BlockImage", "CCrypto"]),
    library("ImageFiles", ["BlockImage", "Compression", "DiskEncryption", "LinuxSystem"]),

    // Devices: pure models, and the process around one.
    library("PCI", ["DeviceModel"]),
    library("Serial", ["DeviceModel"]),
    library("PS2", ["DeviceModel"]),
    library("PIIX", ["DeviceModel"]),
    library("IDE", ["DeviceModel"]),
    library("VGA", ["DeviceModel"]),
    library("InterruptControllers", ["DeviceModel"]),
    library("Sandbox", ["LinuxSystem"]),
    library("DeviceHost", ["DeviceModel", "DeviceProtocol", "LinuxSystem", "Sandbox"]),

    // Core.
    library("Processor"),
    library("KVM", ["LinuxSystem", "Processor"]),
    .target(name: "CHostCPU"),
    // Optimised in debug builds too: the tests run whole machines on it.
    .target(
      name: "SoftCPU", dependencies: ["LinuxSystem", "Processor", "CHostCPU"],
      swiftSettings: settings + [
        .unsafeFlags(["-O", "-wmo", "-num-threads", "2"], .when(configuration: .debug))
      ]),
    library(
      "MachineCore",
      [
        "DeviceModel", "DeviceProtocol", "InterruptControllers", "LinuxSystem", "PCI", "KVM",
        "Monitor", "Processor", "SoftCPU",
      ]),
    library("Monitor", ["DeviceProtocol", "LinuxSystem"]),

    // The operator's side, which parses what clients send; far from core and devices.
    .target(
      name: "Operator", dependencies: ["DeviceProtocol", "LinuxSystem", "Monitor", "Picture"],
      resources: [.embedInCode("../../protocols/qmp-schema.json")], swiftSettings: settings),

    // Launch.
    library("MachineFile", [.product(name: "TOMLKit", package: "TOMLKit")]),
    library(
      "Supervisor",
      [
        "LinuxSystem", "DeviceProtocol", "MachineFile", "Sandbox", "KVM",
        .product(name: "Logging", package: "swift-log"),
      ]),

    // Executables.
    tool("vmlaunch", ["Supervisor", "MachineFile", "LinuxSystem", argumentParser]),
    tool("vmcore", ["MachineCore", "DeviceHost", "Sandbox", "DeviceProtocol", "LinuxSystem"]),
    tool(
      "vmdev-piix",
      ["DeviceHost", "DeviceModel", "DeviceProtocol", "LinuxSystem", "Sandbox", "PIIX", "PS2"]),
    tool(
      "vmdev-ide",
      [
        "DeviceHost", "DeviceModel", "DeviceProtocol", "LinuxSystem", "Sandbox", "IDE",
        "BlockImage", "ImageFiles",
      ]),
    tool(
      "vmdev-serial",
      ["DeviceHost", "DeviceModel", "DeviceProtocol", "LinuxSystem", "Sandbox", "Serial"]),
    tool(
      "vmdev-vga", ["DeviceHost", "DeviceModel", "DeviceProtocol", "LinuxSystem", "Sandbox", "VGA"]),
    tool(
      "vmmonitor",
      ["DeviceHost", "DeviceProtocol", "LinuxSystem", "Monitor", "Operator", "Sandbox"]),
    tool(
      "vmctl",
      ["Monitor", "Picture", "PS2", "DeviceProtocol", "LinuxSystem", "Sandbox", argumentParser]),
    tool(
      "vmimage",
      ["BlockImage", "ImageFiles", "Compression", "LinuxSystem", "Sandbox", argumentParser]),

    // Tests.
    tests("LinuxSystemTests", ["LinuxSystem"]),
    .target(
      name: "ModelTestSupport", dependencies: ["DeviceModel"], path: "Tests/ModelTestSupport",
      swiftSettings: settings),
    tests("DeviceModelTests", ["DeviceModel", "ModelTestSupport"]),
    .target(
      name: "TestSupport", dependencies: ["LinuxSystem"], path: "Tests/TestSupport",
      swiftSettings: settings),
    tests("DeviceProtocolTests", ["DeviceProtocol", "LinuxSystem", "DeviceModel", "TestSupport"]),
    tests(
      "BlockImageTests",
      ["BlockImage", "DiskEncryption", "ImageFiles", "LinuxSystem", "image-writer"],
      exclude: ["make-qcow2-corpus"]),
    .executableTarget(
      name: "image-writer",
      dependencies: ["BlockImage", "DiskEncryption", "ImageFiles", "LinuxSystem"],
      path: "Tests/ImageWriter", swiftSettings: settings),
    tests("ImageToolTests", ["LinuxSystem", "Sandbox", "vmimage"]),
    tests("PictureTests", ["Picture"]),
    tests("PCITests", ["PCI", "DeviceModel", "ModelTestSupport"]),
    tests("SerialTests", ["Serial", "DeviceModel", "ModelTestSupport"]),
    tests("PS2Tests", ["PS2", "DeviceModel", "ModelTestSupport"]),
    tests(
      "PIIXTests", ["PIIX", "DeviceModel", "ModelTestSupport", "TestSupport"], exclude: ["Guests"]),
    tests("IDETests", ["IDE", "DeviceModel", "ModelTestSupport"]),
    tests(
      "InterruptControllersTests", ["InterruptControllers", "DeviceModel", "ModelTestSupport"]),
    tests("VGATests", ["VGA", "DeviceModel", "ModelTestSupport"]),
    tests("SandboxTests", ["Sandbox", "LinuxSystem", "sandbox-probe"]),
    .executableTarget(
      name: "sandbox-probe", dependencies: ["Sandbox", "LinuxSystem", "CSandboxProbe"],
      path: "Tests/SandboxProbe", swiftSettings: settings),
    .target(name: "CSandboxProbe", path: "Tests/CSandboxProbe"),
    tests(
      "DeviceHostTests",
      [
        "DeviceHost", "DeviceModel", "DeviceProtocol", "LinuxSystem", "Sandbox", "TestSupport",
        "vmdev-ide", "vmdev-piix", "vmdev-serial", "vmdev-vga",
      ]),
    tests("KVMTests", ["KVM", "LinuxSystem", "Processor"], exclude: ["Guests"]),
    tests(
      "MachineCoreTests",
      [
        "MachineCore", "DeviceModel", "DeviceProtocol", "LinuxSystem", "PCI", "KVM", "Monitor",
        "Processor", "SoftCPU", "TestSupport",
      ], exclude: ["Guests"]),
    tests(
      "SoftCPUTests", ["SoftCPU", "LinuxSystem", "Processor", "TestSupport"], exclude: ["Guests"]),
    tests("MachineFileTests", ["MachineFile"]),
    tests(
      "PlanTests",
      [
        "MachineFile", "DeviceHost", "DeviceProtocol", "LinuxSystem", "IDE", "vmdev-piix",
        "vmdev-ide", "vmdev-serial", "vmdev-vga",
      ]),
    tests(
      "SupervisorTests",
      [
        "Supervisor", "MachineFile", "LinuxSystem", "DeviceProtocol", "Monitor", "PS2", "vmlaunch",
        "vmctl", "fake-child",
      ]),
    .executableTarget(
      name: "fake-child", dependencies: ["DeviceProtocol", "LinuxSystem"],
      path: "Tests/FakeChild", swiftSettings: settings),
    tests("ImportRulesTests", []),
    tests("OperatorTests", ["Operator", "DeviceProtocol", "LinuxSystem", "Monitor"]),
    tests(
      "SystemTests",
      [
        "LinuxSystem", "DeviceProtocol", "Monitor", "Sandbox", "KVM", "vmlaunch", "vmcore",
        "vmdev-piix",
        "vmdev-ide", "vmdev-serial", "vmdev-vga", "vmctl", "vmmonitor",
        "sandbox-probe",
      ], exclude: ["Guests", "Monitor"]),
  ]
)
