// Front Door with a firewall before both apps. The apps take requests from this Front Door alone.

@description('What every name begins with.')
param prefix string
@description('Tags of every resource.')
param tags object
@description('Log Analytics workspace that takes diagnostics.')
param workspaceId string
@description('Tier. Managed firewall rules need Premium.')
@allowed([
  'Standard_AzureFrontDoor'
  'Premium_AzureFrontDoor'
])
param skuName string
@description('Host name of the function app: takes /api/webhooks/.')
param functionHost string
@description('Host name of the conversation server: takes everything else.')
param serverHost string
@description('Host name of one\'s own; empty for none. Azure makes and renews its certificate, once its `_dnsauth` record is there.')
param customDomain string
@description('Requests a minute from one address beyond which it is blocked.')
@minValue(100)
param requestsPerMinute int
@description('Addresses (CIDR) that are denied: the emergency stop of a caller.')
param deniedAddresses string[]

resource profile 'Microsoft.Cdn/profiles@2025-12-01' = {
  name: '${prefix}-edge'
  location: 'global'
  tags: tags
  sku: {
    name: skuName
  }
  properties: {
    // The longest there is: a slow answer without stream begins with spaces before it.
    originResponseTimeoutSeconds: 240
  }
}

resource endpoint 'Microsoft.Cdn/profiles/afdEndpoints@2025-12-01' = {
  parent: profile
  name: prefix
  location: 'global'
  tags: tags
  properties: {
    enabledState: 'Enabled'
  }
}

resource serverGroup 'Microsoft.Cdn/profiles/originGroups@2025-12-01' = {
  parent: profile
  name: 'server'
  properties: {
    sessionAffinityState: 'Disabled'
    loadBalancingSettings: {
      sampleSize: 4
      successfulSamplesRequired: 3
    }
  }
}

resource functionGroup 'Microsoft.Cdn/profiles/originGroups@2025-12-01' = {
  parent: profile
  name: 'handlers'
  properties: {
    sessionAffinityState: 'Disabled'
    loadBalancingSettings: {
      sampleSize: 4
      successfulSamplesRequired: 3
    }
  }
}

resource serverOrigin 'Microsoft.Cdn/profiles/originGroups/origins@2025-12-01' = {
  parent: serverGroup
  name: 'server'
  properties: {
    hostName: serverHost
    originHostHeader: serverHost
    httpsPort: 443
    enforceCertificateNameCheck: true
    enabledState: 'Enabled'
  }
}

resource functionOrigin 'Microsoft.Cdn/profiles/originGroups/origins@2025-12-01' = {
  parent: functionGroup
  name: 'handlers'
  properties: {
    hostName: functionHost
    originHostHeader: functionHost
    httpsPort: 443
    enforceCertificateNameCheck: true
    enabledState: 'Enabled'
  }
}

resource domain 'Microsoft.Cdn/profiles/customDomains@2025-12-01' = if (!empty(customDomain)) {
  parent: profile
  name: empty(customDomain) ? 'none' : replace(customDomain, '.', '-')
  properties: {
    hostName: customDomain
    tlsSettings: {
      certificateType: 'ManagedCertificate'
      minimumTlsVersion: 'TLS12'
    }
  }
}

var domains = empty(customDomain) ? [] : [
  {
    id: domain.id
  }
]

resource webhooks 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-12-01' = {
  parent: endpoint
  name: 'webhooks'
  properties: {
    originGroup: {
      id: functionGroup.id
    }
    patternsToMatch: [
      '/api/webhooks/*'
      '/api/health/*'
    ]
    supportedProtocols: [
      'Https'
    ]
    forwardingProtocol: 'HttpsOnly'
    // Refused, not redirected: who sends a key in the clear has to notice.
    httpsRedirect: 'Disabled'
    linkToDefaultDomain: 'Enabled'
    customDomains: domains
  }
  dependsOn: [
    functionOrigin
  ]
}

resource rest 'Microsoft.Cdn/profiles/afdEndpoints/routes@2025-12-01' = {
  parent: endpoint
  name: 'server'
  properties: {
    originGroup: {
      id: serverGroup.id
    }
    patternsToMatch: [
      '/*'
    ]
    supportedProtocols: [
      'Https'
    ]
    forwardingProtocol: 'HttpsOnly'
    httpsRedirect: 'Disabled'
    linkToDefaultDomain: 'Enabled'
    customDomains: domains
  }
  dependsOn: [
    serverOrigin
  ]
}

resource firewall 'Microsoft.Network/FrontDoorWebApplicationFirewallPolicies@2025-11-01' = {
  name: '${replace(prefix, '-', '')}waf'
  location: 'global'
  tags: tags
  sku: {
    name: skuName
  }
  properties: {
    policySettings: {
      enabledState: 'Enabled'
      mode: 'Prevention'
    }
    customRules: {
      rules: concat(empty(deniedAddresses) ? [] : [
        {
          name: 'DeniedAddresses'
          priority: 10
          enabledState: 'Enabled'
          ruleType: 'MatchRule'
          action: 'Block'
          matchConditions: [
            {
              matchVariable: 'SocketAddr'
              operator: 'IPMatch'
              matchValue: deniedAddresses
            }
          ]
        }
      ], [
        {
          name: 'RatePerAddress'
          priority: 100
          enabledState: 'Enabled'
          ruleType: 'RateLimitRule'
          rateLimitDurationInMinutes: 1
          rateLimitThreshold: requestsPerMinute
          action: 'Block'
          matchConditions: [
            {
              matchVariable: 'RequestUri'
              operator: 'Any'
              matchValue: []
            }
          ]
        }
      ])
    }
    managedRules: {
      // Bodies are prompts and signed events: rules that read them as HTML forms block what is right. Bots only.
      managedRuleSets: skuName == 'Premium_AzureFrontDoor' ? [
        {
          ruleSetType: 'Microsoft_BotManagerRuleSet'
          ruleSetVersion: '1.1'
        }
      ] : []
    }
  }
}

resource guard 'Microsoft.Cdn/profiles/securityPolicies@2025-12-01' = {
  parent: profile
  name: 'firewall'
  properties: {
    parameters: {
      type: 'WebApplicationFirewall'
      wafPolicy: {
        id: firewall.id
      }
      associations: [
        {
          domains: concat([
            {
              id: endpoint.id
            }
          ], domains)
          patternsToMatch: [
            '/*'
          ]
        }
      ]
    }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: profile
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        categoryGroup: 'allLogs'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'AllMetrics'
        enabled: true
      }
    ]
  }
}

@description('What the apps know this Front Door by (x-azure-fdid).')
output frontDoorId string = profile.properties.frontDoorId
@description('Host name of the endpoint.')
output host string = endpoint.properties.hostName
