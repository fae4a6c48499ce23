// The month's budget of one resource group: somebody is told at 80 % and at 100 % of it, and when it is going to be passed.

@description('Name of the budget.')
param name string
@description('The month\'s amount in the subscription\'s currency.')
@minValue(1)
param amount int
@description('First day of the first month, such as 2026-11-01.')
param startDate string
@description('Addresses that are told.')
param emailAddresses string[]
@description('Action groups that are told.')
param actionGroupIds string[]

resource budget 'Microsoft.Consumption/budgets@2024-08-01' = {
  name: name
  properties: {
    category: 'Cost'
    amount: amount
    timeGrain: 'Monthly'
    timePeriod: {
      startDate: startDate
    }
    notifications: {
      warn: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 80
        thresholdType: 'Actual'
        contactEmails: emailAddresses
        contactGroups: actionGroupIds
      }
      critical: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 100
        thresholdType: 'Actual'
        contactEmails: emailAddresses
        contactGroups: actionGroupIds
      }
      forecast: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: emailAddresses
        contactGroups: actionGroupIds
      }
    }
  }
}

@description('Resource id of the budget.')
output id string = budget.id
