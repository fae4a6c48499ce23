// One identity for each app; a slot shares that of its app, so that roles are given once.

@description('What every name begins with.')
param prefix string
@description('Region.')
param location string
@description('Tags of every resource.')
param tags object

resource handlers 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${prefix}-handlers'
  location: location
  tags: tags
}

resource server 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: '${prefix}-server'
  location: location
  tags: tags
}

@description('An app\'s identity.')
@export()
type appIdentity = {
  @description('Resource id.')
  id: string
  @description('Its name, which is also its role in PostgreSQL.')
  name: string
  @description('Application (client) id: what asks for tokens.')
  clientId: string
  @description('Object (principal) id: what roles are given to, and the user of Redis.')
  principalId: string
}

@description('Identity of the function app.')
output handlers appIdentity = {
  id: handlers.id
  name: handlers.name
  clientId: handlers.properties.clientId
  principalId: handlers.properties.principalId
}
@description('Identity of the conversation server and its slot.')
output server appIdentity = {
  id: server.id
  name: server.name
  clientId: server.properties.clientId
  principalId: server.properties.principalId
}
