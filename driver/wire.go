package driver

import api "github.com/docker/go-plugins-helpers/network"

// The requests and answers of the protocol: those of go-plugins-helpers where they say
// all, our own where newer engines say or understand more.
type (
	// CreateNetworkRequest is the body of CreateNetwork.
	CreateNetworkRequest = api.CreateNetworkRequest
	// DeleteNetworkRequest is the body of DeleteNetwork.
	DeleteNetworkRequest = api.DeleteNetworkRequest
	// AllocateNetworkRequest is the body of AllocateNetwork.
	AllocateNetworkRequest = api.AllocateNetworkRequest
	// AllocateNetworkResponse is the answer to it.
	AllocateNetworkResponse = api.AllocateNetworkResponse
	// FreeNetworkRequest is the body of FreeNetwork.
	FreeNetworkRequest = api.FreeNetworkRequest
	// CreateEndpointRequest is the body of CreateEndpoint.
	CreateEndpointRequest = api.CreateEndpointRequest
	// CreateEndpointResponse is the answer to it.
	CreateEndpointResponse = api.CreateEndpointResponse
	// EndpointInterface is part of both.
	EndpointInterface = api.EndpointInterface
	// DeleteEndpointRequest is the body of DeleteEndpoint.
	DeleteEndpointRequest = api.DeleteEndpointRequest
	// InfoRequest is the body of EndpointOperInfo.
	InfoRequest = api.InfoRequest
	// InfoResponse is the answer to it.
	InfoResponse = api.InfoResponse
	// JoinRequest is the body of Join.
	JoinRequest = api.JoinRequest
	// LeaveRequest is the body of Leave.
	LeaveRequest = api.LeaveRequest
	// ProgramRequest is the body of ProgramExternalConnectivity.
	ProgramRequest = api.ProgramExternalConnectivityRequest
	// RevokeRequest is the body of RevokeExternalConnectivity.
	RevokeRequest = api.RevokeExternalConnectivityRequest
	// Discovery is the body of DiscoverNew and DiscoverDelete.
	Discovery = api.DiscoveryNotification
	// Capabilities is the answer to GetCapabilities.
	Capabilities = api.CapabilitiesResponse
)

// JoinResponse is the answer to Join.
type JoinResponse struct {
	InterfaceName         InterfaceName
	Gateway               string
	DisableGatewayService bool
}

// InterfaceName names the container's end: as it is now, and as it is to be.
type InterfaceName struct {
	SrcName, DstPrefix string
	// DstName is a whole name instead of prefix and number. Engines know it since 29.8; for
	// them it must be there exactly if the user named the interface.
	DstName string `json:",omitempty"`
}
